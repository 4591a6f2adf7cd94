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
extern PyTypeObject LookType;

#define SLOT(model, offset) (*(PyObject **)((char *)(model) + (offset)))

int prepare_looks(void); /* before the first one; -1 with an error */
PyObject *made_of(PyTypeObject *cls, PyObject *fields, PyObject *names, int has_extra);

PyObject *look(PyObject *module, PyObject *model);
PyObject *unchanged(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *again(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *read_items(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
