/* petal.checkpoints.codec._many_models, and where pydantic's models keep what they hold. */

#include "models.h"

#include <structmember.h>

PyTypeObject *base_model;
Py_ssize_t fields_set_at, extra_at, private_at;

/* A model of some fields, which it takes over, also where it fails. */
PyObject *
made_of(PyTypeObject *cls, PyObject *fields, PyObject *names, int has_extra)
{
    PyObject *extra = has_extra ? PyDict_New() : Py_NewRef(Py_None), *set = PySet_New(names), *model = NULL;
    if (extra != NULL && set != NULL)
        model = cls->tp_alloc(cls, 0);
    if (model != NULL && PyObject_GenericSetDict(model, fields, NULL) < 0)
        Py_CLEAR(model);
    if (model != NULL) {
        SLOT(model, fields_set_at) = Py_NewRef(set);
        SLOT(model, extra_at) = Py_NewRef(extra);
        SLOT(model, private_at) = Py_NewRef(Py_None);
    }
    Py_XDECREF(set);
    Py_XDECREF(extra);
    Py_DECREF(fields);
    return model;
}

/* Where models keep what one of pydantic's slots holds; -1 with an error. */
static Py_ssize_t
offset_of(const char *name)
{
    Py_ssize_t offset = -1;
    PyObject *slot = PyObject_GetAttrString((PyObject *)base_model, name);
    if (slot == NULL)
        return -1;
    if (Py_IS_TYPE(slot, &PyMemberDescr_Type) && ((PyMemberDescrObject *)slot)->d_member->type == T_OBJECT_EX)
        offset = ((PyMemberDescrObject *)slot)->d_member->offset;
    else
        PyErr_Format(PyExc_ImportError, "pydantic's models keep %s in another way than this module knows", name);
    Py_DECREF(slot);
    return offset;
}

static PyMethodDef functions[] = {
    {"look", look, METH_O, PyDoc_STR("How a pydantic model looks, if it holds plain data and no more than its fields.")},
    {"unchanged", (PyCFunction)(void (*)(void))unchanged, METH_FASTCALL,
     PyDoc_STR("For each model that there is a look for: 1 if it is of some class and as it was, in values and types, else 0.")},
    {"again", (PyCFunction)(void (*)(void))again, METH_FASTCALL,
     PyDoc_STR("Models of looks, up to the first that is of none of some classes; they share nothing that can be changed. "
               "Of a list that nobody else has, those that nobody else holds and that are as they were are taken.")},
    {"read", (PyCFunction)(void (*)(void))read_items, METH_FASTCALL,
     PyDoc_STR("The models of items up to the first that is to be read by the codec.")},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "petal.checkpoints.codec._many_models",
    .m_doc = PyDoc_STR("petal.checkpoints.codec.many_models in C."),
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__many_models(void)
{
    PyObject *pydantic, *module;
    pydantic = PyImport_ImportModule("pydantic");
    if (pydantic == NULL)
        return NULL;
    base_model = (PyTypeObject *)PyObject_GetAttrString(pydantic, "BaseModel");
    Py_DECREF(pydantic);
    if (base_model == NULL)
        return NULL;
    fields_set_at = offset_of("__pydantic_fields_set__");
    extra_at = fields_set_at < 0 ? -1 : offset_of("__pydantic_extra__");
    private_at = extra_at < 0 ? -1 : offset_of("__pydantic_private__");
    if (private_at < 0 || prepare_looks() < 0)
        return NULL;
    module = PyModule_Create(&definition);
    if (module != NULL && PyModule_AddObjectRef(module, "Look", (PyObject *)&LookType) < 0)
        Py_CLEAR(module);
    return module;
}
