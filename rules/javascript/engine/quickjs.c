/* What the engine does with QuickJS-NG: start once at build time; then, in each sandbox, compile one rule, or take one in
 * that was compiled and ask it once.
 * Nothing is given back: the sandbox ends with the call. */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "quickjs.h"

/* The Rust part has values as numbers of 64 bits. */
_Static_assert(sizeof(JSValue) == sizeof(uint64_t), "values are boxed");

/* The Rust part: a line of the call's log. */
extern void till_log(const char *text, size_t length);

/* What the last call below came to: code, an answer as JSON, or what was thrown. */
const char *till_text = "";
size_t till_length = 0;

/* Bytes in use at which what hangs together in circles and cannot be reached is looked for: half of what a call may have. All
 * else is given back when its last holder drops it. */
enum { GARBAGE_BYTES_MAX = 8 << 20 };
/* Bytes that a call finds free: what a small rule needs on an order of some lines. */
enum { ROOM_BYTES = 256 << 10 };

static JSContext *context;
static JSValue rule;
static JSValue shapes;

/* Runs when the engine is built. There is no clock and no randomness in a sandbox, so what would read them throws. */
static const char PRELUDE[] =
    "(() => {"
    "  const none = (what) => () => { throw new TypeError(`a rule has no ${what}`); };"
    "  const clock = none('clock: use order.placedAt');"
    "  const Real = Date;"
    "  const Kept = new Proxy(Real, {"
    "    construct(target, args, newTarget) {"
    "      if (args.length === 0) clock();"
    "      return Reflect.construct(target, args, newTarget === Kept ? Real : newTarget);"
    "    },"
    "    apply: clock,"
    "  });"
    "  Real.now = clock;"
    "  Real.prototype.constructor = Kept;"
    "  globalThis.Date = Kept;"
    "  Math.random = none('randomness');"
    "  delete globalThis.queueMicrotask;"
    "})()";

/* Objects with the fields of questions and answers, one field more from each to the next. An object that is given the same
 * fields in the same order shares their layout, step by step, and makes none of its own in every call. */
static const char SHAPES[] =
    "["
    "  'id placedAt currency customer destination metadata settings', 'id attributes',"
    "  'country region city postalCode', 'order lines', 'sku quantity unitPrice discount taxRate category',"
    "  'sku quantity category held', 'location quantity', 'order lines carrier',"
    "  'order total units lines paymentMethod', 'order total lines', 'sku quantity gross discount category',"
    "  'adjust', 'line discount', 'line taxRate', 'line discount taxRate', 'refuse', 'code message', 'place',"
    "  'line locations', 'review', 'decline', 'split', 'line quantity', 'location carrier promisedAt contents',"
    "].flatMap((fields) => fields.split(' ').map((_, last, all) => {"
    "  const it = {};"
    "  for (const name of all.slice(0, last + 1)) it[name] = null;"
    "  return it;"
    "}))";

static void say(const char *text, size_t length) {
    till_text = text;
    till_length = length;
}

/* What was thrown, with the lines it came through. */
static void say_exception(void) {
    JSValue exception = JS_GetException(context);
    size_t length = 0, more = 0;
    const char *text = JS_ToCStringLen(context, &length, exception);
    if (!text) {
        JS_FreeValue(context, JS_GetException(context));
        say("something that cannot be shown", 30);
        return;
    }
    say(text, length);
    if (!JS_IsError(exception))
        return;
    JSValue stack = JS_GetPropertyStr(context, exception, "stack");
    const char *lines = JS_IsString(stack) ? JS_ToCStringLen(context, &more, stack) : NULL;
    char *all = lines && more ? malloc(length + 1 + more) : NULL;
    if (!all)
        return;
    memcpy(all, text, length);
    all[length] = '\n';
    memcpy(all + length + 1, lines, more);
    say(all, length + 1 + more);
}

static JSValue console_log(JSContext *ctx, JSValueConst this_val, int argc, JSValueConst *argv) {
    char *line = NULL;
    size_t used = 0;
    for (int index = 0; index < argc; index++) {
        size_t length;
        const char *text = JS_ToCStringLen(ctx, &length, argv[index]);
        char *more = text ? realloc(line, used + length + 1) : NULL;
        if (!more)
            return text ? JS_ThrowOutOfMemory(ctx) : JS_EXCEPTION;
        line = more;
        if (index > 0)
            line[used++] = ' ';
        memcpy(line + used, text, length);
        used += length;
    }
    till_log(line ? line : "", used);
    free(line);
    return JS_UNDEFINED;
}

/* Starts the engine. Called once, when it is built: what it leaves in memory is the image of every sandbox. */
__attribute__((export_name("start"))) void start(void) {
    JSRuntime *runtime = JS_NewRuntime();
    context = JS_NewContextRaw(runtime);
    if (JS_AddIntrinsicBaseObjects(context) || JS_AddIntrinsicDate(context) || JS_AddIntrinsicEval(context) ||
        JS_AddIntrinsicRegExp(context) || JS_AddIntrinsicJSON(context) || JS_AddIntrinsicProxy(context) ||
        JS_AddIntrinsicMapSet(context) || JS_AddIntrinsicTypedArrays(context) || JS_AddIntrinsicPromise(context))
        abort();
    JSValue global = JS_GetGlobalObject(context);
    JSValue console = JS_NewObject(context);
    JS_SetPropertyStr(context, console, "log", JS_NewCFunction(context, console_log, "log", 1));
    JS_SetPropertyStr(context, global, "console", console);
    JSValue done = JS_Eval(context, PRELUDE, sizeof(PRELUDE) - 1, "prelude.js", JS_EVAL_TYPE_GLOBAL);
    if (JS_IsException(done))
        abort();
    shapes = JS_Eval(context, SHAPES, sizeof(SHAPES) - 1, "shapes.js", JS_EVAL_TYPE_GLOBAL);
    if (JS_IsException(shapes))
        abort();
    JS_RunGC(runtime);
    JS_SetGCThreshold(runtime, GARBAGE_BYTES_MAX);
    /* Room for a call: memory that grows costs the host a change of its pages in each sandbox. */
    free(malloc(ROOM_BYTES));
}

/* Compiles a rule, an ECMAScript module; nothing of it runs. The text must end with a zero that its length does not count. */
int till_compile(const char *source, size_t length) {
    JSValue module =
        JS_Eval(context, source, length, "index.js", JS_EVAL_TYPE_MODULE | JS_EVAL_FLAG_COMPILE_ONLY);
    size_t size = 0;
    /* Names and lines stay, for what is thrown; the text of a function does not. */
    int flags = JS_WRITE_OBJ_BYTECODE | JS_WRITE_OBJ_STRIP_SOURCE;
    uint8_t *code = JS_IsException(module) ? NULL : JS_WriteObject(context, &size, module, flags);
    if (!code) {
        say_exception();
        return -1;
    }
    /* Behind the version stands a checksum, to be read in each call. The host hands over what it was given: there is none. */
    memset(code + 1, 0xff, 4);
    say((const char *)code, size);
    return 0;
}

/* Takes in a rule that an engine of this build has compiled, and runs it up to its end. */
int till_load(const uint8_t *code, size_t length) {
    JSValue module = JS_ReadObject(context, code, length, JS_READ_OBJ_BYTECODE);
    if (JS_IsException(module) || JS_ResolveModule(context, module) < 0) {
        say_exception();
        return -1;
    }
    JSModuleDef *definition = JS_VALUE_GET_PTR(module);
    JSValue promise = JS_EvalFunction(context, module);
    if (JS_IsException(promise)) {
        say_exception();
        return -1;
    }
    switch (JS_PromiseState(context, promise)) {
    case JS_PROMISE_FULFILLED:
        break;
    case JS_PROMISE_REJECTED:
        JS_Throw(context, JS_PromiseResult(context, promise));
        say_exception();
        return -1;
    default:
        say("the module waits for something, and nothing comes", 49);
        return -1;
    }
    rule = JS_GetModuleNamespace(context, definition);
    return 0;
}

/* Whether the rule exports a function of this name. */
int till_exports(const char *hook) {
    JSValue function = JS_GetPropertyStr(context, rule, hook);
    return JS_IsFunction(context, function);
}

/* Values, from which a question is made. Where one fails, and memory is all that can be missing, the question is not asked. */
static int failed;

static JSValue made(JSValue value) {
    failed |= JS_IsException(value);
    return value;
}

JSValue till_null(void) { return JS_NULL; }
JSValue till_string(const char *text, size_t length) { return made(JS_NewStringLen(context, text, length)); }
JSValue till_number(int64_t number) { return JS_NewInt64(context, number); }
JSValue till_array(void) { return made(JS_NewArray(context)); }
JSValue till_object(void) { return made(JS_NewObject(context)); }

/* What a JSON text says; what is none is no field. The text must end with a zero that its length does not count. */
JSValue till_json(const char *text, size_t length) {
    JSValue value = JS_ParseJSON(context, text, length, "settings");
    if (!JS_IsException(value))
        return value;
    JS_FreeValue(context, JS_GetException(context));
    return till_object();
}

void till_push(JSValue array, uint32_t index, JSValue value) {
    failed |= JS_DefinePropertyValueUint32(context, array, index, value, JS_PROP_C_W_E) < 0;
}

/* Gives an object a field of any name. */
void till_set(JSValue object, const char *name, size_t length, JSValue value) {
    JSAtom atom = JS_NewAtomLen(context, name, length);
    failed |= atom == JS_ATOM_NULL || JS_DefinePropertyValue(context, object, atom, value, JS_PROP_C_W_E) < 0;
    JS_FreeAtom(context, atom);
}

/* Gives an object a field whose name is a text that stays where it is: its atom is looked up once. */
void till_set_known(JSValue object, const char *name, size_t length, JSValue value) {
    static struct {
        const char *name;
        JSAtom atom;
    } known[64], *it;
    it = &known[((uintptr_t)name >> 2) % 64];
    if (it->name != name) {
        it->name = name;
        it->atom = JS_NewAtomLen(context, name, length);
    }
    failed |= it->atom == JS_ATOM_NULL || JS_DefinePropertyValue(context, object, it->atom, value, JS_PROP_C_W_E) < 0;
}

/* Asks a hook. */
int till_ask(const char *hook, JSValue question) {
    JSValue function = JS_GetPropertyStr(context, rule, hook);
    JSValue answer = failed ? JS_EXCEPTION : JS_Call(context, function, JS_UNDEFINED, 1, &question);
    JSValue json =
        JS_IsException(answer) ? JS_EXCEPTION : JS_JSONStringify(context, answer, JS_UNDEFINED, JS_UNDEFINED);
    const char *text = NULL;
    size_t size = 0;
    if (JS_IsUndefined(json)) {
        say("undefined", 9);
        return 0;
    }
    if (!JS_IsException(json))
        text = JS_ToCStringLen(context, &size, json);
    if (!text) {
        say_exception();
        return -1;
    }
    say(text, size);
    return 0;
}

/* What the C library would ask of a system. Nothing of a rule comes here: the clock of `Date` is shut off above. */
int32_t __imported_wasi_snapshot_preview1_clock_time_get(int32_t id, int64_t precision, int32_t at) {
    (void)id, (void)precision;
    *(uint64_t *)(intptr_t)at = 0;
    return 0;
}

/* What would be printed goes nowhere. */
enum { NOT_THERE = 52 };

int32_t __imported_wasi_snapshot_preview1_fd_close(int32_t file) {
    (void)file;
    return NOT_THERE;
}

int32_t __imported_wasi_snapshot_preview1_fd_fdstat_get(int32_t file, int32_t at) {
    (void)file, (void)at;
    return NOT_THERE;
}

int32_t __imported_wasi_snapshot_preview1_fd_seek(int32_t file, int64_t by, int32_t from, int32_t at) {
    (void)file, (void)by, (void)from, (void)at;
    return NOT_THERE;
}

int32_t __imported_wasi_snapshot_preview1_fd_write(int32_t file, int32_t texts, int32_t count, int32_t at) {
    (void)file, (void)texts, (void)count, (void)at;
    return NOT_THERE;
}
