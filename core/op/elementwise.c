/* The ops of kernels/elementwise.def: rows for the kernels, and everything an op says of
 * itself. Adding an op needs no change here. Read next: kernels/elementwise.def,
 * core/device/cpu/elementwise.c, core/grad/row.c. */
#include <math.h>
#include <pthread.h>

#include "../grad/graph.h"
#include "ops.h"

/* What the words of the table stand for. */
#define TYPES_FLOATS NYX_ROW_FLOATS
#define TYPES_WIDE NYX_ROW_FLOATS
#define TYPES_NUMBERS NYX_ROW_NUMBERS
#define TYPES_INTS NYX_ROW_INTS
#define TYPES_NUMBERS8 NYX_ROW_NUMBERS
#define TYPES_ORDERED8 NYX_ROW_NUMBERS
#define TYPES_SIGNED8 NYX_ROW_NUMBERS
#define TYPES_INTS8 NYX_ROW_INTS
#define TYPES_BITS8 NYX_ROW_INTS
#define DTYPES_FLOATS NYX_DTYPES_FLOAT
#define DTYPES_WIDE (NYX_DTYPES(NYX_FLOAT32) | NYX_DTYPES(NYX_FLOAT64))
#define DTYPES_NUMBERS NYX_DTYPES_ALL
#define DTYPES_INTS NYX_DTYPES_INT
#define DTYPES_NUMBERS8 NYX_DTYPES_ALL
#define DTYPES_ORDERED8 NYX_DTYPES_ALL
#define DTYPES_SIGNED8 NYX_DTYPES_NUMBER
#define DTYPES_INTS8 NYX_DTYPES_INT
#define DTYPES_BITS8 (NYX_DTYPES_INT | NYX_DTYPES(NYX_BOOL))
#define PROMOTION_COMMON .promotion = NYX_PROMOTE_COMMON
#define PROMOTION_FLOAT .promotion = NYX_PROMOTE_FLOAT
#define PROMOTION_COMMON32 PROMOTION_COMMON, .autocast = NYX_AUTOCAST_FLOAT32
#define PROMOTION_FLOAT32 PROMOTION_FLOAT, .autocast = NYX_AUTOCAST_FLOAT32
#define RESULT_SAME false
#define RESULT_BOOL true
#define GRADIENT(text) (__builtin_strcmp(text, "NOGRAD") ? text : NULL)

static const nyx_row rows[] = {
#define NYX_UNARY(name, group, types, promotion, result, attrs, forward, gx, lo, hi,     \
                  doc)                                                                   \
  {#name, NYX__OP_##name, 1, TYPES_##types, RESULT_##result, #forward, {GRADIENT(#gx)}},
#define NYX_BINARY(name, group, types, promotion, result, attrs, forward, gx, gy, lo,    \
                   hi, doc)                                                              \
  {#name,                                                                                \
   NYX__OP_##name,                                                                       \
   2,                                                                                    \
   TYPES_##types,                                                                        \
   RESULT_##result,                                                                      \
   #forward,                                                                             \
   {GRADIENT(#gx), GRADIENT(#gy)}},
#define NYX_TERNARY(name, group, types, promotion, result, attrs, forward, gx, gy, gz,   \
                    lo, hi, doc)                                                         \
  {#name,                                                                                \
   NYX__OP_##name,                                                                       \
   3,                                                                                    \
   TYPES_##types,                                                                        \
   RESULT_##result,                                                                      \
   #forward,                                                                             \
   {GRADIENT(#gx), GRADIENT(#gy), GRADIENT(#gz)}},
#include "../../kernels/elementwise.def"
#undef NYX_UNARY
#undef NYX_BINARY
#undef NYX_TERNARY
};

/* Attributes p and q, by row; a row without them has entries that are all zero. */
static const nyx_attr attributes[][2] = {
#define NOATTR
#define ATTR(word, value)                                                                \
  { .name = #word, .type = NYX_ATTR_FLOAT, .preset = NYX_F(value), .doc = "a number" }
#define ATTR1(word, value) ATTR(word, value)
#define ATTR2(word1, value1, word2, value2) ATTR(word1, value1), ATTR(word2, value2)
#define NYX_UNARY(name, group, types, promotion, result, attrs, ...)                     \
  [NYX__OP_##name] = {attrs},
#define NYX_BINARY NYX_UNARY
#define NYX_TERNARY NYX_UNARY
#include "../../kernels/elementwise.def"
#undef NYX_UNARY
#undef NYX_BINARY
#undef NYX_TERNARY
};

static nyx_op ops[] = {
#define ROW(word, words, count, heading, types, mode, low, high, line)                   \
  {.name = #word,                                                                        \
   .group = #heading,                                                                    \
   .doc = line,                                                                          \
   .kind = NYX_OP_ELEMENTWISE,                                                           \
   PROMOTION_##mode,                                                                     \
   .dtypes = DTYPES_##types,                                                             \
   .inputs = words,                                                                      \
   .min_in = count,                                                                      \
   .max_in = count,                                                                      \
   .attrs = attributes[NYX__OP_##word],                                                  \
   .n_out = 1,                                                                           \
   .domain = {low, high},                                                                \
   .row = &rows[NYX__OP_##word]},
#define NYX_UNARY(name, group, types, promotion, result, attrs, forward, gx, lo, hi,     \
                  doc)                                                                   \
  ROW(name, "x", 1, group, types, promotion, lo, hi, doc)
#define NYX_BINARY(name, group, types, promotion, result, attrs, forward, gx, gy, lo,    \
                   hi, doc)                                                              \
  ROW(name, "x y", 2, group, types, promotion, lo, hi, doc)
#define NYX_TERNARY(name, group, types, promotion, result, attrs, forward, gx, gy, gz,   \
                    lo, hi, doc)                                                         \
  ROW(name, "x y z", 3, group, types, promotion, lo, hi, doc)
#include "../../kernels/elementwise.def"
};

/* Counts attributes and reads from the gradient's texts what a backward pass needs. */
static void complete(void) {
  for (int i = 0; i < NYX_ROW_COUNT; i++) {
    nyx_op *op = &ops[i];
    while (op->n_attrs < 2 && op->attrs[op->n_attrs].name) op->n_attrs++;
    for (int k = 0; k < rows[i].arity; k++) {
      if (!rows[i].gradient[k]) continue;
      unsigned uses = nyx__row_uses(&rows[i], k + 1); /* g x y z r */
      op->gradient = nyx__row_gradient;
      op->save_in |= uses >> 1 & 7u;
      op->save_out |= uses >> 4;
    }
  }
}

int nyx__elementwise_ops(const nyx_op **first) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, complete);
  *first = ops;
  return NYX_ROW_COUNT;
}

const nyx_row *nyx__row(nyx__op_id id) {
  return &rows[id];
}

const char *nyx_op_text(const nyx_op *op, int part) {
  if (!op || op->kind != NYX_OP_ELEMENTWISE || !op->row) return NULL;
  const nyx_row *row = op->row;
  if (part < 0 || part > row->arity) return NULL;
  return part == 0 ? row->forward : row->gradient[part - 1];
}
