/* Valgrind is told here which part of a process counts: instructions.py loads this with ctypes. */

#include <valgrind/callgrind.h>

/* Of CPython 3.11, which has loaded this: without its headers, which are not everywhere. */
typedef struct {
    void *function, *globals, *builtins, *locals, *code;
} Frame;
typedef void *Evaluate(void *thread, Frame *frame, int is_thrown);
extern Evaluate _PyEval_EvalFrameDefault;
extern void *PyInterpreterState_Get(void);
extern void _PyInterpreterState_SetEvalFrameFunc(void *interpreter, Evaluate *evaluate);
extern void *PyObject_GetAttrString(void *object, const char *name);
extern const char *PyUnicode_AsUTF8(void *text);
extern void Py_DecRef(void *object);

enum { DEEPEST = 256, LONGEST = 300 };

static char names[DEEPEST][LONGEST] = {"outside"};
static int depth;

void begin_counting(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void end_counting(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}

static void append(char *target, void *code, const char *attribute, char end) {
    void *text = PyObject_GetAttrString(code, attribute);
    const char *from = PyUnicode_AsUTF8(text);
    while (*target) target++;
    for (int left = LONGEST / 2 - 2; *from && left; left--) *target++ = *from++;
    *target++ = end;
    *target = 0;
    Py_DecRef(text);
}

/* What was counted until a frame begins or ends belongs to the function that ran. */
static void *evaluate(void *thread, Frame *frame, int is_thrown) {
    if (depth == DEEPEST - 1) return _PyEval_EvalFrameDefault(thread, frame, is_thrown);
    CALLGRIND_DUMP_STATS_AT(names[depth]);
    names[++depth][0] = 0;
    append(names[depth], frame->code, "co_filename", ':');
    append(names[depth], frame->code, "co_qualname", 0);
    CALLGRIND_ZERO_STATS;
    void *result = _PyEval_EvalFrameDefault(thread, frame, is_thrown);
    CALLGRIND_DUMP_STATS_AT(names[depth--]);
    CALLGRIND_ZERO_STATS;
    return result;
}

void begin_counting_by_function(void) {
    _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Get(), evaluate);
    begin_counting();
}

void end_counting_by_function(void) {
    end_counting(names[depth]);
    _PyInterpreterState_SetEvalFrameFunc(PyInterpreterState_Get(), _PyEval_EvalFrameDefault);
}
