/* petal.checkpoints.codec.many_models in C, where a compiler was at hand; many_models_in_python.py says what it does.

Nothing here runs Python code of anybody else while it looks at a value: only values of the built-in types, exactly, are
looked into. Whatever is of another type has no look, or differs from the one that it had; what is not read as plain
data of the simplest form is left to the codec, and so are all errors.
*/

#ifndef PETAL_MODELS_H
#define PETAL_MODELS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

/* Deeper than any message is; a list that contains itself ends here too. */
#define DEEPEST 64

extern PyTypeObject *base_model;                       /* pydantic's */
extern Py_ssize_t fields_set_at, extra_at, private_at; /* where an instance keeps them */

/* How a model looked. */
typedef struct {
    PyObject_VAR_HEAD /* as many values as fields */
    PyTypeObject *cls;
    PyObject *shape; /* tuple: the names of the fields in their order, and a dict with no more than these */
    PyObject *names; /* frozenset: its fields set */
    uint64_t nested; /* which of the fields, by position, hold a list, a dict or a tuple */
    int has_extra;   /* whether its extra is a dict, an empty one, instead of None */
    PyObject *values[1]; /* what its fields held, copied */
} Look;

extern PyTypeObject LookType;

#define SLOT(model, offset) (*(PyObject **)((char *)(model) + (offset)))

static inline int
is_atom(PyObject *value)
{
    return PyUnicode_CheckExact(value) || value == Py_None || PyBool_Check(value) || PyLong_CheckExact(value) ||
           PyFloat_CheckExact(value) || PyBytes_CheckExact(value);
}

int prepare_looks(void); /* before the first one; -1 with an error */
PyObject *plain_fields(PyObject *model);
PyObject *copied(PyObject *value, int depth);
int same_atom(PyObject *one, PyObject *other);
int is_one_of(PyTypeObject *cls, PyObject *classes);
void fetch_ahead(PyObject *models, PyObject *looks, Py_ssize_t at);
PyObject *fields_as_before(PyObject *model, PyObject *known, PyObject *classes);
PyObject *made_of(PyTypeObject *cls, PyObject *fields, PyObject *names, int has_extra);

PyObject *look(PyObject *module, PyObject *model);
PyObject *unchanged(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *again(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *read_items(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
