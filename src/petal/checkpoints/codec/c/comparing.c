/* Whether models look as they did. */

#include "models.h"

#if defined(__GNUC__) || defined(__clang__)
#define FETCH(address) __builtin_prefetch(address)
#else
#define FETCH(address) ((void)(address))
#endif

/* Equal in value and type; neither runs foreign code nor fails. */
int
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

int
is_one_of(PyTypeObject *cls, PyObject *classes)
{
    int is_one = PySet_Contains(classes, (PyObject *)cls);
    if (is_one < 0)
        PyErr_Clear(); /* of a class that cannot be hashed none is there */
    return is_one > 0;
}

/* Whether fields are those that a look remembers. An atom that is the very same one is not looked at: that would fetch
   it into the processor's cache. */
static int
same_fields(PyObject *fields, Look *before)
{
    PyObject *names = PyTuple_GET_ITEM(before->shape, 0), *key, *value;
    Py_ssize_t at = 0, size = Py_SIZE(before);
    if (PyDict_GET_SIZE(fields) != size)
        return 0;
    for (Py_ssize_t n = 0; n < size; n++) {
        PyObject *name = PyTuple_GET_ITEM(names, n), *known = before->values[n];
        if (!PyDict_Next(fields, &at, &key, &value) || (key != name && !same_atom(key, name)))
            return 0;
        if ((value != known || before->nested >> n & 1) && !same(value, known, 1))
            return 0;
    }
    return 1;
}

/* So many models before its turn, the processor fetches a model itself, then what its fields are in, then their names
   and values. */
enum { MODEL_AHEAD = 6, FIELDS_AHEAD = 4, KEYS_AHEAD = 2 };

static void
fetch(void *address, int lines)
{
    for (int line = 0; line < lines; line++)
        FETCH((char *)address + 64 * line);
}

/* A new reference to the model at a place that is of its look's class, and its dict, which is its own; or NULL. */
static PyObject *
comparable(PyObject *models, PyObject *looks, Py_ssize_t at, PyDictObject **fields)
{
    PyObject *model, **dict;
    if (at >= Py_MIN(PyList_GET_SIZE(models), PyTuple_GET_SIZE(looks)))
        return NULL;
    model = Py_NewRef(PyList_GET_ITEM(models, at));
    if (Py_IS_TYPE(PyTuple_GET_ITEM(looks, at), &LookType) &&
        Py_TYPE(model) == ((Look *)PyTuple_GET_ITEM(looks, at))->cls &&
        (dict = _PyObject_GetDictPtr(model)) != NULL && *dict != NULL) {
        *fields = (PyDictObject *)*dict;
        return model;
    }
    Py_DECREF(model);
    return NULL;
}

/* Has the processor fetch, one stage of pointers after the other, what is compared a few models later. Where the cache
   does not hold a long chat, each comparison waited for memory a dozen times in turn. */
void
fetch_ahead(PyObject *models, PyObject *looks, Py_ssize_t at)
{
#ifndef Py_GIL_DISABLED /* there, others may free a model meanwhile */
    PyObject *model;
    PyDictObject *fields;
    if (at + MODEL_AHEAD < Py_MIN(PyList_GET_SIZE(models), PyTuple_GET_SIZE(looks))) {
        FETCH(PyList_GET_ITEM(models, at + MODEL_AHEAD));
        fetch(PyTuple_GET_ITEM(looks, at + MODEL_AHEAD), 3);
    }
    if ((model = comparable(models, looks, at + FIELDS_AHEAD, &fields)) != NULL) {
        FETCH(fields);
        fetch(SLOT(model, fields_set_at), 3);
        Py_DECREF(model);
    }
    if ((model = comparable(models, looks, at + KEYS_AHEAD, &fields)) != NULL) {
        fetch(fields->ma_keys, 4);
        Py_DECREF(model);
    }
#endif
}

/* A new reference to the fields of a model that looks as before; NULL without an error where it does not. */
PyObject *
fields_as_before(PyObject *model, PyObject *known, PyObject *classes)
{
    Look *before = (Look *)known;
    PyObject *fields, *names;
    int is_same;
    if (!Py_IS_TYPE(known, &LookType) || Py_TYPE(model) != before->cls || !is_one_of(before->cls, classes))
        return NULL;
    fields = plain_fields(model);
    if (fields == NULL)
        return NULL;
    is_same = before->has_extra == (SLOT(model, extra_at) != Py_None) && same_fields(fields, before);
    if (is_same) {
        /* Last, since a set may hold something that runs foreign code when it is compared, and may fail. */
        names = Py_NewRef(SLOT(model, fields_set_at));
        is_same = PyObject_RichCompareBool(before->names, names, Py_EQ);
        Py_DECREF(names);
        if (is_same < 0)
            PyErr_Clear();
    }
    if (is_same <= 0)
        Py_CLEAR(fields);
    return fields;
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
        PyObject *fields;
        fetch_ahead(args[0], args[1], n);
        fields = fields_as_before(model, PyTuple_GET_ITEM(args[1], n), args[2]);
        PyBytes_AS_STRING(flags)[n] = fields != NULL;
        Py_XDECREF(fields);
        Py_DECREF(model);
    }
    return flags;
}
