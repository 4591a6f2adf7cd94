/* How models look, and models made of looks. */

#include "models.h"

/* One bit each in the mask of the fields that hold something that can be changed in place. */
#define MOST_FIELDS 64
/* Sets and rows of field names that looks share; a program makes a few. */
#define MOST_SHARED 1024

typedef struct {
    PyObject_VAR_HEAD /* as many values as fields */
    PyTypeObject *cls;
    PyObject *shape; /* tuple: the names of the fields in their order, and a dict with no more than these */
    PyObject *names; /* frozenset: its fields set */
    uint64_t nested; /* which of the fields, by position, hold a list, a dict or a tuple */
    int has_extra;   /* whether its extra is a dict, an empty one, instead of None */
    PyObject *values[1]; /* what its fields held, copied */
} Look;

static PyObject *shared_sets;   /* dict: frozenset to itself */
static PyObject *shared_shapes; /* dict: the names to the shape */
static PyObject *empty_dict, *empty_list; /* stand for all of a look's; nobody else has them */

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

static int
is_one_of(PyTypeObject *cls, PyObject *classes)
{
    int is_one = PySet_Contains(classes, (PyObject *)cls);
    if (is_one < 0)
        PyErr_Clear(); /* of a class that cannot be hashed none is there */
    return is_one > 0;
}

/* Whether fields are those that a look remembers. */
static int
same_fields(PyObject *fields, Look *before)
{
    PyObject *names = PyTuple_GET_ITEM(before->shape, 0), *key, *value;
    Py_ssize_t at = 0, size = Py_SIZE(before);
    if (PyDict_GET_SIZE(fields) != size)
        return 0;
    for (Py_ssize_t n = 0; n < size; n++) {
        if (!PyDict_Next(fields, &at, &key, &value) || !same_atom(key, PyTuple_GET_ITEM(names, n)) ||
            !same(value, before->values[n], 1))
            return 0;
    }
    return 1;
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
    is_same = before->has_extra == (SLOT(model, extra_at) != Py_None) && same_fields(fields, before);
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
    PyObject *names = PyTuple_GET_ITEM(known->shape, 0), *fields = PyDict_Copy(PyTuple_GET_ITEM(known->shape, 1));
    for (Py_ssize_t n = 0; fields != NULL && n < Py_SIZE(known); n++) {
        PyObject *value = known->nested >> n & 1 ? copied(known->values[n], 1) : Py_NewRef(known->values[n]);
        if (value == NULL || PyDict_SetItem(fields, PyTuple_GET_ITEM(names, n), value) < 0)
            Py_CLEAR(fields);
        Py_XDECREF(value);
    }
    return fields == NULL ? NULL : made_of(known->cls, fields, known->names, known->has_extra);
}

static int
has_weak_references(PyObject *object)
{
    Py_ssize_t offset = Py_TYPE(object)->tp_weaklistoffset;
    return offset != 0 && *(PyObject **)((char *)object + offset) != NULL;
}

/* Whether nobody but its one holder can change a value of built-in types, or anything in it. */
static int
is_held_once(PyObject *value)
{
    if (PyDict_CheckExact(value)) {
        Py_ssize_t at = 0;
        PyObject *key, *item;
        if (Py_REFCNT(value) != 1)
            return 0;
        while (PyDict_Next(value, &at, &key, &item)) {
            if (!is_atom(item) && !is_held_once(item))
                return 0;
        }
        return 1;
    }
    if (PyList_CheckExact(value) || PyTuple_CheckExact(value)) {
        Py_ssize_t size = PySequence_Fast_GET_SIZE(value);
        PyObject **items = PySequence_Fast_ITEMS(value);
        int is_alone = Py_REFCNT(value) == 1;
        if (PyList_CheckExact(value) && !is_alone)
            return 0;
        for (Py_ssize_t n = 0; n < size; n++) {
            /* Through a tuple that others hold they reach what is in it. */
            if (!is_atom(items[n]) && !(is_alone && is_held_once(items[n])))
                return 0;
        }
        return 1;
    }
    return 0;
}

/* Whether a model is as it was, and nobody but a list of ours can reach it or anything in it. */
static int
can_be_used_again(PyObject *model, Look *known, PyObject *classes)
{
#ifdef Py_GIL_DISABLED
    return 0; /* there, counts of references do not tell that */
#else
    PyObject *fields, *key, *value, *names = NULL, *extra = NULL;
    Py_ssize_t at = 0;
    int can = 0;
    if (Py_REFCNT(model) != 1 || has_weak_references(model) || !looks_as_before(model, (PyObject *)known, classes))
        return 0;
    fields = plain_fields(model);
    if (fields == NULL)
        return 0;
    names = SLOT(model, fields_set_at);
    extra = SLOT(model, extra_at);
    can = Py_REFCNT(fields) == 2 && Py_REFCNT(names) == 1 && !has_weak_references(names) &&
          (extra == Py_None || Py_REFCNT(extra) == 1);
    for (uint64_t nested = known->nested; can && nested; nested >>= 1) {
        PyDict_Next(fields, &at, &key, &value);
        can = !(nested & 1) || is_held_once(value);
    }
    Py_DECREF(fields);
    return can;
#endif
}

PyObject *
again(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    PyObject *models, *used;
    Py_ssize_t start;
    if (count != 4 || !PyTuple_Check(args[0]) || !PyLong_Check(args[1]) || !PyAnySet_Check(args[2]) ||
        !PyList_Check(args[3])) {
        PyErr_SetString(PyExc_TypeError, "again takes a tuple of looks, a position, a set of classes and a list of models");
        return NULL;
    }
    used = args[3];
    start = PyLong_AsSsize_t(args[1]);
    if (start < 0 || PyErr_Occurred() || (models = PyList_New(0)) == NULL)
        return NULL;
    for (Py_ssize_t n = start; n < PyTuple_GET_SIZE(args[0]); n++) {
        Look *known = (Look *)PyTuple_GET_ITEM(args[0], n);
        PyObject *model;
        int failed;
        if (!Py_IS_TYPE(known, &LookType) || !is_one_of(known->cls, args[2]))
            break;
        if (n < PyList_GET_SIZE(used) && can_be_used_again(PyList_GET_ITEM(used, n), known, args[2]))
            model = Py_NewRef(PyList_GET_ITEM(used, n));
        else
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
