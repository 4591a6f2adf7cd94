/* How models look. */

#include "models.h"

/* One bit each in the mask of the fields that hold something that can be changed in place. */
#define MOST_FIELDS 64
/* Sets and rows of field names that looks share; a program makes a few. */
#define MOST_SHARED 1024

static PyObject *shared_sets;   /* dict: frozenset to itself */
static PyObject *shared_shapes; /* dict: the names to the shape */
static PyObject *empty_dict, *empty_list; /* stand for all of a look's; nobody else has them */

/* A new reference to a copy that shares nothing that can be changed. NULL without an error: it holds something that
   has no look. To allocate may run foreign code by way of the garbage collector, so sizes are looked at each time. */
PyObject *
copied(PyObject *value, int depth)
{
    if (is_atom(value))
        return Py_NewRef(value);
    if (depth > DEEPEST)
        return NULL;
    if (PyDict_CheckExact(value)) {
        Py_ssize_t at = 0;
        PyObject *key, *item, *copy = PyDict_New();
        if (copy == NULL)
            return NULL;
        while (PyDict_Next(value, &at, &key, &item)) {
            PyObject *made = NULL;
            int failed = 1;
            Py_INCREF(key);
            Py_INCREF(item);
            if (is_atom(key) && (made = copied(item, depth + 1)) != NULL)
                failed = PyDict_SetItem(copy, key, made);
            Py_XDECREF(made);
            Py_DECREF(item);
            Py_DECREF(key);
            if (failed) {
                Py_DECREF(copy);
                return NULL;
            }
        }
        return copy;
    }
    if (PyList_CheckExact(value)) {
        PyObject *copy = PyList_New(0);
        if (copy == NULL)
            return NULL;
        for (Py_ssize_t n = 0; n < PyList_GET_SIZE(value); n++) {
            PyObject *item = Py_NewRef(PyList_GET_ITEM(value, n)), *made = copied(item, depth + 1);
            int failed = made == NULL || PyList_Append(copy, made);
            Py_XDECREF(made);
            Py_DECREF(item);
            if (failed) {
                Py_DECREF(copy);
                return NULL;
            }
        }
        return copy;
    }
    if (PyTuple_CheckExact(value)) {
        Py_ssize_t size = PyTuple_GET_SIZE(value);
        PyObject *copy = PyTuple_New(size);
        if (copy == NULL)
            return NULL;
        for (Py_ssize_t n = 0; n < size; n++) {
            PyObject *made = copied(PyTuple_GET_ITEM(value, n), depth + 1);
            if (made == NULL) {
                Py_DECREF(copy);
                return NULL;
            }
            PyTuple_SET_ITEM(copy, n, made);
        }
        return copy;
    }
    return NULL;
}

/* A new reference to what stands for a key in a dict of what looks share, if need be what it is to stand for. */
static PyObject *
shared(PyObject **all, PyObject *key, PyObject *value)
{
    PyObject *known;
    if (*all == NULL && (*all = PyDict_New()) == NULL)
        return NULL;
    known = PyDict_GetItemWithError(*all, key);
    if (known != NULL)
        return Py_NewRef(known);
    if (PyErr_Occurred() || (PyDict_GET_SIZE(*all) < MOST_SHARED && PyDict_SetItem(*all, key, value) < 0))
        return NULL;
    return Py_NewRef(value);
}

static PyObject *
shared_names(PyObject *names)
{
    PyObject *frozen = PyFrozenSet_New(names), *found = NULL;
    if (frozen != NULL)
        found = shared(&shared_sets, frozen, frozen);
    Py_XDECREF(frozen);
    return found;
}

/* The names of some fields, which are atoms, and a dict of them; NULL without an error where others are among them. */
static PyObject *
shape_of(PyObject *fields)
{
    Py_ssize_t size = PyDict_GET_SIZE(fields), at = 0, n = 0;
    PyObject *names = PyTuple_New(size), *key, *value, *known, *blank, *shape = NULL;
    if (names == NULL)
        return NULL;
    while (PyDict_Next(fields, &at, &key, &value)) {
        if (!PyUnicode_CheckExact(key) || n == size) {
            Py_DECREF(names);
            return NULL;
        }
        PyTuple_SET_ITEM(names, n++, Py_NewRef(key));
    }
    known = shared_shapes == NULL ? NULL : PyDict_GetItemWithError(shared_shapes, names);
    if (known != NULL) {
        Py_DECREF(names);
        return Py_NewRef(known);
    }
    blank = PyErr_Occurred() ? NULL : PyDict_New();
    for (n = 0; blank != NULL && n < size; n++) {
        if (PyDict_SetItem(blank, PyTuple_GET_ITEM(names, n), Py_None) < 0)
            Py_CLEAR(blank);
    }
    if (blank != NULL && (shape = PyTuple_Pack(2, names, blank)) != NULL) {
        known = shared(&shared_shapes, names, shape);
        Py_DECREF(shape);
        shape = known;
    }
    Py_XDECREF(blank);
    Py_DECREF(names);
    return shape;
}

/* A new reference to the fields of a model that holds nothing but these; NULL without an error for any other. */
PyObject *
plain_fields(PyObject *model)
{
    PyObject *extra, *names, *fields;
    if (!PyObject_TypeCheck(model, base_model))
        return NULL;
    extra = SLOT(model, extra_at);
    names = SLOT(model, fields_set_at);
    if (SLOT(model, private_at) != Py_None || extra == NULL || names == NULL || !PySet_CheckExact(names))
        return NULL;
    if (extra != Py_None && !(PyDict_CheckExact(extra) && PyDict_GET_SIZE(extra) == 0))
        return NULL;
    fields = PyObject_GenericGetDict(model, NULL);
    if (fields == NULL) {
        PyErr_Clear();
        return NULL;
    }
    if (!PyDict_CheckExact(fields)) {
        Py_DECREF(fields);
        return NULL;
    }
    return fields;
}

/* A new reference to what a look keeps of a value; NULL without an error where it has no look. */
static PyObject *
remembered(PyObject *value)
{
    if (PyDict_CheckExact(value) && PyDict_GET_SIZE(value) == 0)
        return Py_NewRef(empty_dict);
    if (PyList_CheckExact(value) && PyList_GET_SIZE(value) == 0)
        return Py_NewRef(empty_list);
    return copied(value, 1);
}

PyObject *
look(PyObject *Py_UNUSED(module), PyObject *model)
{
    PyObject *fields = plain_fields(model), *shape, *key, *value;
    Py_ssize_t at = 0, size;
    Look *self;
    if (fields == NULL)
        Py_RETURN_NONE;
    size = PyDict_GET_SIZE(fields);
    shape = size > MOST_FIELDS ? NULL : shape_of(fields);
    if (shape == NULL) {
        Py_DECREF(fields);
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_NONE;
    }
    self = PyObject_NewVar(Look, &LookType, size);
    if (self == NULL) {
        Py_DECREF(shape);
        Py_DECREF(fields);
        return NULL;
    }
    self->cls = (PyTypeObject *)Py_NewRef(Py_TYPE(model));
    self->shape = shape;
    self->names = NULL;
    self->nested = 0;
    self->has_extra = SLOT(model, extra_at) != Py_None;
    memset(self->values, 0, sizeof(PyObject *) * (size_t)size);
    for (Py_ssize_t n = 0; n < size; n++) {
        PyObject *kept = NULL;
        /* What was allocated may have had foreign code run, which changed the fields. */
        if (PyDict_GET_SIZE(fields) == size && PyDict_Next(fields, &at, &key, &value) &&
            same_atom(key, PyTuple_GET_ITEM(PyTuple_GET_ITEM(shape, 0), n))) {
            Py_INCREF(value);
            kept = remembered(value);
            Py_DECREF(value);
        }
        if (kept == NULL) {
            Py_DECREF(self);
            Py_DECREF(fields);
            if (PyErr_Occurred())
                return NULL;
            Py_RETURN_NONE;
        }
        self->values[n] = kept;
        if (!is_atom(kept))
            self->nested |= (uint64_t)1 << n;
    }
    Py_DECREF(fields);
    self->names = shared_names(SLOT(model, fields_set_at));
    if (self->names == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void
look_dealloc(Look *self)
{
    for (Py_ssize_t n = 0; n < Py_SIZE(self); n++)
        Py_XDECREF(self->values[n]);
    Py_DECREF(self->cls);
    Py_DECREF(self->shape);
    Py_XDECREF(self->names);
    PyObject_Free(self);
}

PyTypeObject LookType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "petal.checkpoints.codec._many_models.Look",
    .tp_doc = PyDoc_STR("One model as it was."),
    .tp_basicsize = offsetof(Look, values),
    .tp_itemsize = sizeof(PyObject *),
    .tp_dealloc = (destructor)look_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
};

int
prepare_looks(void)
{
    if (empty_dict == NULL)
        empty_dict = PyDict_New();
    if (empty_list == NULL)
        empty_list = PyList_New(0);
    return empty_dict == NULL || empty_list == NULL ? -1 : PyType_Ready(&LookType);
}
