/* How models look, and models made of looks. */

#include "models.h"

/* One bit each in the mask of the fields that hold something that can be changed in place. */
#define MOST_FIELDS 64
/* Sets of field names that looks share; a program makes a few. */
#define MOST_SETS 1024

typedef struct {
    PyObject_HEAD
    PyTypeObject *cls;
    PyObject *fields; /* dict: what the model held, copied */
    PyObject *names;  /* frozenset: its fields set */
    uint64_t nested;  /* which of the fields, by position, hold a list, a dict or a tuple */
    int has_extra;    /* whether its extra is a dict, an empty one, instead of None */
} Look;

static PyObject *shared_sets; /* dict: frozenset to itself */

static int
is_atom(PyObject *value)
{
    return PyUnicode_CheckExact(value) || value == Py_None || PyBool_Check(value) || PyLong_CheckExact(value) ||
           PyFloat_CheckExact(value) || PyBytes_CheckExact(value);
}

/* Equal in value and type; neither runs foreign code nor fails. */
static int
same_atom(PyObject *one, PyObject *other)
{
    if (one == other)
        return is_atom(one);
    if (Py_TYPE(one) != Py_TYPE(other))
        return 0;
    if (PyFloat_CheckExact(one)) {
        double a = PyFloat_AS_DOUBLE(one), b = PyFloat_AS_DOUBLE(other);
        return memcmp(&a, &b, sizeof a) == 0;
    }
    if (PyUnicode_CheckExact(one) || PyLong_CheckExact(one) || PyBytes_CheckExact(one))
        return PyObject_RichCompareBool(one, other, Py_EQ) == 1;
    return 0;
}

/* Equal in value, type and order. Allocates nothing, so that no garbage collection can change what is compared. */
static int
same(PyObject *one, PyObject *other, int depth)
{
    if (Py_TYPE(one) != Py_TYPE(other) || depth > DEEPEST)
        return 0;
    if (PyDict_CheckExact(one)) {
        Py_ssize_t here = 0, there = 0;
        PyObject *key, *value, *known_key, *known;
        if (PyDict_GET_SIZE(one) != PyDict_GET_SIZE(other))
            return 0;
        while (PyDict_Next(one, &here, &key, &value)) {
            if (!PyDict_Next(other, &there, &known_key, &known) || !same_atom(key, known_key) ||
                !same(value, known, depth + 1))
                return 0;
        }
        return 1;
    }
    if (PyList_CheckExact(one) || PyTuple_CheckExact(one)) {
        Py_ssize_t size = PySequence_Fast_GET_SIZE(one);
        PyObject **items = PySequence_Fast_ITEMS(one), **known = PySequence_Fast_ITEMS(other);
        if (size != PySequence_Fast_GET_SIZE(other))
            return 0;
        for (Py_ssize_t n = 0; n < size; n++) {
            if (!same(items[n], known[n], depth + 1))
                return 0;
        }
        return 1;
    }
    return same_atom(one, other);
}

/* A new reference to a copy that shares nothing that can be changed. NULL without an error: it holds something that
   has no look. To allocate may run foreign code by way of the garbage collector, so sizes are looked at each time. */
static PyObject *
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

/* A new reference to an equal frozenset that looks share. */
static PyObject *
shared(PyObject *names)
{
    PyObject *frozen, *known;
    if (shared_sets == NULL && (shared_sets = PyDict_New()) == NULL)
        return NULL;
    frozen = PyFrozenSet_New(names);
    if (frozen == NULL)
        return NULL;
    known = PyDict_GetItemWithError(shared_sets, frozen);
    if (known != NULL) {
        Py_DECREF(frozen);
        return Py_NewRef(known);
    }
    if (PyErr_Occurred() ||
        (PyDict_GET_SIZE(shared_sets) < MOST_SETS && PyDict_SetItem(shared_sets, frozen, frozen) < 0)) {
        Py_DECREF(frozen);
        return NULL;
    }
    return frozen;
}

/* A new reference to the fields of a model that holds nothing but these; NULL without an error for any other. */
static PyObject *
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

PyObject *
look(PyObject *Py_UNUSED(module), PyObject *model)
{
    PyObject *fields = plain_fields(model), *copy;
    Py_ssize_t at = 0, position = 0;
    PyObject *key, *value;
    Look *self;
    if (fields == NULL)
        Py_RETURN_NONE;
    copy = copied(fields, 0);
    Py_DECREF(fields);
    if (copy != NULL && PyDict_GET_SIZE(copy) > MOST_FIELDS)
        Py_CLEAR(copy);
    if (copy == NULL) {
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_NONE;
    }
    self = PyObject_New(Look, &LookType);
    if (self == NULL) {
        Py_DECREF(copy);
        return NULL;
    }
    self->cls = (PyTypeObject *)Py_NewRef(Py_TYPE(model));
    self->fields = copy;
    self->has_extra = SLOT(model, extra_at) != Py_None;
    self->nested = 0;
    self->names = shared(SLOT(model, fields_set_at));
    if (self->names == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    while (PyDict_Next(copy, &at, &key, &value)) {
        if (!is_atom(value))
            self->nested |= (uint64_t)1 << position;
        position++;
    }
    /* Nobody else sees it, so it is part of no cycle; thousands of looks need not be looked through for any. */
    PyObject_GC_UnTrack(copy);
    return (PyObject *)self;
}

static int
is_one_of(PyTypeObject *cls, PyObject *classes)
{
    int is_one = PySet_Contains(classes, (PyObject *)cls);
    if (is_one < 0)
        PyErr_Clear(); /* of a class that cannot be hashed none is there */
    return is_one > 0;
}

static int
looks_as_before(PyObject *model, PyObject *known, PyObject *classes)
{
    Look *before = (Look *)known;
    PyObject *fields, *names;
    int is_same;
    if (!Py_IS_TYPE(known, &LookType) || Py_TYPE(model) != before->cls || !is_one_of(before->cls, classes))
        return 0;
    fields = plain_fields(model);
    if (fields == NULL)
        return 0;
    is_same = before->has_extra == (SLOT(model, extra_at) != Py_None) && same(fields, before->fields, 0);
    Py_DECREF(fields);
    if (!is_same)
        return 0;
    /* Last, since a set may hold something that runs foreign code when it is compared, and may fail. */
    names = Py_NewRef(SLOT(model, fields_set_at));
    is_same = PyObject_RichCompareBool(names, before->names, Py_EQ);
    Py_DECREF(names);
    if (is_same < 0)
        PyErr_Clear();
    return is_same > 0;
}

PyObject *
unchanged(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    PyObject *flags;
    Py_ssize_t size;
    if (count != 3 || !PyList_Check(args[0]) || !PyTuple_Check(args[1]) || !PyAnySet_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "unchanged takes a list of models, a tuple of looks and a set of classes");
        return NULL;
    }
    size = Py_MIN(PyList_GET_SIZE(args[0]), PyTuple_GET_SIZE(args[1]));
    flags = PyBytes_FromStringAndSize(NULL, size);
    if (flags == NULL)
        return NULL;
    for (Py_ssize_t n = 0; n < size; n++) {
        /* The list may have become shorter by foreign code meanwhile. */
        PyObject *model = n < PyList_GET_SIZE(args[0]) ? Py_NewRef(PyList_GET_ITEM(args[0], n)) : Py_NewRef(Py_None);
        PyBytes_AS_STRING(flags)[n] = (char)looks_as_before(model, PyTuple_GET_ITEM(args[1], n), args[2]);
        Py_DECREF(model);
    }
    return flags;
}

/* The model once more. */
static PyObject *
made(Look *known)
{
    PyObject *fields = PyDict_Copy(known->fields), *key, *value;
    Py_ssize_t at = 0;
    if (fields == NULL)
        return NULL;
    for (uint64_t nested = known->nested; nested; nested >>= 1) {
        PyObject *copy;
        int failed;
        PyDict_Next(known->fields, &at, &key, &value);
        if (!(nested & 1))
            continue;
        copy = copied(value, 1);
        failed = copy == NULL || PyDict_SetItem(fields, key, copy);
        Py_XDECREF(copy);
        if (failed) {
            Py_DECREF(fields);
            return NULL;
        }
    }
    return made_of(known->cls, fields, known->names, known->has_extra);
}

PyObject *
again(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    PyObject *models;
    Py_ssize_t start;
    if (count != 3 || !PyTuple_Check(args[0]) || !PyLong_Check(args[1]) || !PyAnySet_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "again takes a tuple of looks, a position and a set of classes");
        return NULL;
    }
    start = PyLong_AsSsize_t(args[1]);
    if (start < 0 || PyErr_Occurred() || (models = PyList_New(0)) == NULL)
        return NULL;
    for (Py_ssize_t n = start; n < PyTuple_GET_SIZE(args[0]); n++) {
        Look *known = (Look *)PyTuple_GET_ITEM(args[0], n);
        PyObject *model;
        int failed;
        if (!Py_IS_TYPE(known, &LookType) || !is_one_of(known->cls, args[2]))
            break;
        model = made(known);
        failed = model == NULL || PyList_Append(models, model);
        Py_XDECREF(model);
        if (failed) {
            Py_DECREF(models);
            return NULL;
        }
    }
    return models;
}

static void
look_dealloc(Look *self)
{
    Py_XDECREF(self->cls);
    Py_XDECREF(self->fields);
    Py_XDECREF(self->names);
    PyObject_Free(self);
}

PyTypeObject LookType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "petal.checkpoints.codec._many_models.Look",
    .tp_doc = PyDoc_STR("One model as it was."),
    .tp_basicsize = sizeof(Look),
    .tp_dealloc = (destructor)look_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
};
