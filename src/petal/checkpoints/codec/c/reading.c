/* Models read from MessagePack, as petal.checkpoints.codec.models lays them out in their simplest form. */

#include "models.h"

/* MessagePack that is being read. */
typedef struct {
    const unsigned char *at, *end;
} Cursor;

/* The next bytes, which are passed; NULL where there are not so many. */
static const unsigned char *
taken(Cursor *cursor, uint64_t size)
{
    const unsigned char *at = cursor->at;
    if (size > (uint64_t)(cursor->end - at))
        return NULL;
    cursor->at += size;
    return at;
}

/* A number of some bytes, the highest first; false where there are not so many. */
static int
number(Cursor *cursor, int bytes, uint64_t *value)
{
    const unsigned char *at = taken(cursor, (uint64_t)bytes);
    if (at == NULL)
        return 0;
    for (*value = 0; bytes; bytes--)
        *value = *value << 8 | *at++;
    return 1;
}

/* How many bytes the text has that comes next; false where something else does. */
static int
text_size(Cursor *cursor, uint64_t *size)
{
    const unsigned char *head = taken(cursor, 1);
    if (head == NULL)
        return 0;
    if (*head >= 0xa0 && *head <= 0xbf) {
        *size = *head & 0x1f;
        return 1;
    }
    return *head >= 0xd9 && *head <= 0xdb && number(cursor, 1 << (*head - 0xd9), size);
}

static PyObject *
text(Cursor *cursor)
{
    uint64_t size;
    const unsigned char *at = text_size(cursor, &size) ? taken(cursor, size) : NULL;
    return at == NULL ? NULL : PyUnicode_DecodeUTF8((const char *)at, (Py_ssize_t)size, NULL);
}

static PyObject *parsed(Cursor *cursor, int depth);

static PyObject *
parsed_list(Cursor *cursor, uint64_t size, int depth)
{
    PyObject *list;
    /* Each has a byte at least: no few bytes may ask for all the memory there is. */
    if (size > (uint64_t)(cursor->end - cursor->at) || (list = PyList_New((Py_ssize_t)size)) == NULL)
        return NULL;
    for (Py_ssize_t n = 0; n < (Py_ssize_t)size; n++) {
        PyObject *item = parsed(cursor, depth + 1);
        if (item == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, n, item);
    }
    return list;
}

static PyObject *
parsed_dict(Cursor *cursor, uint64_t size, int depth)
{
    PyObject *dict = PyDict_New();
    for (; dict != NULL && size; size--) {
        PyObject *key = text(cursor), *value = key == NULL ? NULL : parsed(cursor, depth + 1);
        if (value == NULL || PyDict_SetItem(dict, key, value) < 0)
            Py_CLEAR(dict);
        Py_XDECREF(value);
        Py_XDECREF(key);
    }
    return dict;
}

/* A new reference to the value that comes next; NULL, with an error or without, for what is damaged or not plain. */
static PyObject *
parsed(Cursor *cursor, int depth)
{
    uint64_t value = 0;
    const unsigned char *head = taken(cursor, 1), *at;
    if (head == NULL || depth > DEEPEST)
        return NULL;
    if (*head <= 0x7f)
        return PyLong_FromLong(*head);
    if (*head >= 0xe0)
        return PyLong_FromLong((signed char)*head);
    if (*head <= 0x8f)
        return parsed_dict(cursor, *head & 0x0f, depth);
    if (*head <= 0x9f)
        return parsed_list(cursor, *head & 0x0f, depth);
    switch (*head) {
    case 0xc0:
        Py_RETURN_NONE;
    case 0xc2:
        Py_RETURN_FALSE;
    case 0xc3:
        Py_RETURN_TRUE;
    case 0xc4: case 0xc5: case 0xc6:
        at = number(cursor, 1 << (*head - 0xc4), &value) ? taken(cursor, value) : NULL;
        return at == NULL ? NULL : PyBytes_FromStringAndSize((const char *)at, (Py_ssize_t)value);
    case 0xcb: {
        double real;
        if (!number(cursor, 8, &value))
            return NULL;
        memcpy(&real, &value, sizeof real);
        return PyFloat_FromDouble(real);
    }
    case 0xcc: case 0xcd: case 0xce: case 0xcf:
        return number(cursor, 1 << (*head - 0xcc), &value) ? PyLong_FromUnsignedLongLong(value) : NULL;
    case 0xd0:
        return number(cursor, 1, &value) ? PyLong_FromLong((int8_t)value) : NULL;
    case 0xd1:
        return number(cursor, 2, &value) ? PyLong_FromLong((int16_t)value) : NULL;
    case 0xd2:
        return number(cursor, 4, &value) ? PyLong_FromLong((int32_t)value) : NULL;
    case 0xd3:
        return number(cursor, 8, &value) ? PyLong_FromLongLong((int64_t)value) : NULL;
    case 0xdc: case 0xdd:
        return number(cursor, 2 << (*head - 0xdc), &value) ? parsed_list(cursor, value, depth) : NULL;
    case 0xde: case 0xdf:
        return number(cursor, 2 << (*head - 0xde), &value) ? parsed_dict(cursor, value, depth) : NULL;
    default:
        cursor->at = head;
        return text(cursor);
    }
}

/* The name of the field that comes next, one of some: most often that which comes next among them. NULL for another. */
static PyObject *
field_name(Cursor *cursor, PyObject *known, Py_ssize_t next)
{
    uint64_t size;
    const unsigned char *at = text_size(cursor, &size) ? taken(cursor, size) : NULL;
    Py_ssize_t count = PyTuple_GET_SIZE(known);
    for (Py_ssize_t n = 0; at != NULL && n < count; n++) {
        PyObject *name = PyTuple_GET_ITEM(known, (next + n) % count);
        Py_ssize_t length;
        const char *utf8 = PyUnicode_AsUTF8AndSize(name, &length);
        if (utf8 == NULL)
            return NULL;
        if ((uint64_t)length == size && memcmp(utf8, at, (size_t)size) == 0)
            return name;
    }
    return NULL;
}

/* The fields of a model, all of which must be there. */
static PyObject *
parsed_fields(Cursor *cursor, PyObject *known)
{
    const unsigned char *head = taken(cursor, 1);
    Py_ssize_t count = PyTuple_GET_SIZE(known);
    uint64_t size = 0;
    PyObject *fields;
    if (head == NULL)
        return NULL;
    if ((*head & 0xf0) == 0x80)
        size = *head & 0x0f;
    else if (*head != 0xde || !number(cursor, 2, &size))
        return NULL;
    if (size != (uint64_t)count || (fields = PyDict_New()) == NULL)
        return NULL;
    for (Py_ssize_t n = 0; n < count; n++) {
        PyObject *name = field_name(cursor, known, n), *value = name == NULL ? NULL : parsed(cursor, 1);
        int failed = value == NULL || PyDict_SetItem(fields, name, value);
        Py_XDECREF(value);
        if (failed) {
            Py_DECREF(fields);
            return NULL;
        }
    }
    if (PyDict_GET_SIZE(fields) != count)
        Py_CLEAR(fields);
    return fields;
}

/* Whether it is (class, names of its fields, whether it allows extras, sets of fields by mask). */
static int
is_recipe(PyObject *recipe)
{
    PyObject *cls, *names;
    if (!PyTuple_CheckExact(recipe) || PyTuple_GET_SIZE(recipe) != 4)
        return 0;
    cls = PyTuple_GET_ITEM(recipe, 0);
    names = PyTuple_GET_ITEM(recipe, 1);
    if (!PyType_Check(cls) || !PyType_IsSubtype((PyTypeObject *)cls, base_model) || !PyTuple_CheckExact(names) ||
        !PyDict_CheckExact(PyTuple_GET_ITEM(recipe, 3)))
        return 0;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(names); n++) {
        if (!PyUnicode_CheckExact(PyTuple_GET_ITEM(names, n)))
            return 0;
    }
    return 1;
}

/* A new reference to the model of one item, NULL for what is not of the simplest form or has no recipe. */
static PyObject *
read_one(PyObject *item, long code, PyObject *recipes)
{
    static const int fixed[] = {1, 2, 4, 8, 16};
    PyObject *name, *mask, *recipe, *names = NULL, *fields = NULL, *model = NULL;
    const unsigned char *head, *at;
    uint64_t size = 0;
    Cursor cursor;
    if (!PyBytes_CheckExact(item))
        return NULL;
    cursor.at = (const unsigned char *)PyBytes_AS_STRING(item);
    cursor.end = cursor.at + PyBytes_GET_SIZE(item);
    head = taken(&cursor, 1);
    if (head == NULL)
        return NULL;
    if (*head >= 0xd4 && *head <= 0xd8)
        size = (uint64_t)fixed[*head - 0xd4];
    else if (*head < 0xc7 || *head > 0xc9 || !number(&cursor, 1 << (*head - 0xc7), &size))
        return NULL;
    at = taken(&cursor, 1);
    if (at == NULL || *at != (unsigned char)code || size != (uint64_t)(cursor.end - cursor.at))
        return NULL;
    at = taken(&cursor, 1);
    if (at == NULL || *at != 0x93)
        return NULL;
    name = text(&cursor);
    mask = name == NULL ? NULL : parsed(&cursor, 1);
    recipe = mask == NULL || !PyLong_CheckExact(mask) ? NULL : PyDict_GetItemWithError(recipes, name);
    if (recipe != NULL && is_recipe(recipe)) {
        names = PyDict_GetItemWithError(PyTuple_GET_ITEM(recipe, 3), mask);
        if (names != NULL)
            fields = parsed_fields(&cursor, PyTuple_GET_ITEM(recipe, 1));
        if (fields != NULL && cursor.at != cursor.end)
            Py_CLEAR(fields);
        if (fields != NULL)
            model = made_of((PyTypeObject *)PyTuple_GET_ITEM(recipe, 0), fields, names,
                            PyTuple_GET_ITEM(recipe, 2) == Py_True);
    }
    Py_XDECREF(mask);
    Py_XDECREF(name);
    return model;
}

PyObject *
read_items(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    PyObject *models;
    Py_ssize_t start;
    long code;
    if (count != 4 || !PyTuple_Check(args[0]) || !PyLong_Check(args[1]) || !PyLong_Check(args[2]) ||
        !PyDict_CheckExact(args[3])) {
        PyErr_SetString(PyExc_TypeError, "read takes a tuple of bytes, a position, the code of models and their recipes");
        return NULL;
    }
    start = PyLong_AsSsize_t(args[1]);
    code = PyLong_AsLong(args[2]);
    if (start < 0 || PyErr_Occurred() || (models = PyList_New(0)) == NULL)
        return NULL;
    for (Py_ssize_t n = start; n < PyTuple_GET_SIZE(args[0]); n++) {
        PyObject *model = read_one(PyTuple_GET_ITEM(args[0], n), code, args[3]);
        int failed = 0;
        if (model == NULL) {
            PyErr_Clear(); /* the codec will find it again, and say where */
            break;
        }
        failed = PyList_Append(models, model);
        Py_DECREF(model);
        if (failed) {
            Py_DECREF(models);
            return NULL;
        }
    }
    return models;
}
