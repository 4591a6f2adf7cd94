/* Models of looks: those that were there before, or new ones. */

#include "models.h"

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
    PyObject *fields, *key, *value, *names, *extra;
    Py_ssize_t at = 0;
    int can;
    if (Py_REFCNT(model) != 1 || has_weak_references(model))
        return 0;
    fields = fields_as_before(model, (PyObject *)known, classes);
    if (fields == NULL)
        return 0;
    names = SLOT(model, fields_set_at);
    extra = SLOT(model, extra_at);
    can = names != NULL && extra != NULL && Py_REFCNT(fields) == 2 && Py_REFCNT(names) == 1 &&
          !has_weak_references(names) && (extra == Py_None || Py_REFCNT(extra) == 1);
    for (uint64_t nested = known->nested; can && nested; nested >>= 1)
        can = PyDict_Next(fields, &at, &key, &value) && (!(nested & 1) || is_held_once(value));
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
        fetch_ahead(used, args[0], n);
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
