/* The kernels of recurrence.h over one float type: included by recurrence_<type>.c, which
 * chooses the type and RECURRENCE_KERNEL, the symbol. Read next: recurrence.h,
 * softmax_lanes.h. */
#include "cpu.h"
#include "recurrence.h"
#include "softmax_lanes.h"

/* Where the operands of one row and vector lie; `part` lanes count. */
typedef struct spot {
  const nyx_cell_step *s;
  int64_t row, column, part;
} spot;

/* Of a row of `blocks` blocks, block k. */
NYX_FN int64_t offset(const spot *p, int64_t blocks, int64_t k) {
  return (p->row * blocks + k) * p->s->hidden + p->column;
}
NYX_FN T read(const spot *p, const void *from, int64_t blocks, int64_t k) {
  return load_lanes((const S *)from + offset(p, blocks, k), p->part);
}
NYX_FN T read_or_zero(const spot *p, const void *from) {
  return from ? read(p, from, 1, 0) : K(0);
}
NYX_FN void write(const spot *p, void *to, int64_t blocks, int64_t k, T v) {
  store_lanes((S *)to + offset(p, blocks, k), p->part, v);
}

/* Block k of the product, of `blocks`, with the bias. */
NYX_FN T product_of(const spot *p, int64_t blocks, int64_t k) {
  const S *at = p->s->product;
  T v = load_lanes(at + (p->row * blocks + k) * p->s->tile + p->column, p->part);
  if (p->s->bias)
    v += load_lanes((const S *)p->s->bias + k * p->s->hidden + p->column, p->part);
  return v;
}
/* The gradient of the state after this step. */
NYX_FN T gradient_of(const spot *p) {
  return product_of(p, 1, 0) + read_or_zero(p, p->s->grad);
}
/* The slope of a sigmoid, and of tanh, whose value is v. */
NYX_FN T sigmoid_slope(T v) {
  return v * (K(1) - v);
}
NYX_FN T tanh_slope(T v) {
  return K(1) - v * v;
}

NYX_FN void lstm_forward(const spot *p) {
  const nyx_cell_step *s = p->s;
  T i = nyx_sigmoid(product_of(p, 4, 0)), f = nyx_sigmoid(product_of(p, 4, 1));
  T g = nyx_tanh(product_of(p, 4, 2)), o = nyx_sigmoid(product_of(p, 4, 3));
  T c = nyx_fma(f, read(p, s->cell_before, 1, 0), i * g);
  write(p, s->gates, 4, 0, i);
  write(p, s->gates, 4, 1, f);
  write(p, s->gates, 4, 2, g);
  write(p, s->gates, 4, 3, o);
  write(p, s->cell, 1, 0, c);
  write(p, s->y, 1, 0, o * nyx_tanh(c));
}

NYX_FN void lstm_backward(const spot *p) {
  const nyx_cell_step *s = p->s;
  T i = read(p, s->gates, 4, 0), f = read(p, s->gates, 4, 1);
  T g = read(p, s->gates, 4, 2), o = read(p, s->gates, 4, 3);
  T dh = gradient_of(p), y = nyx_tanh(read(p, s->cell, 1, 0));
  T dc = read(p, s->carry, 1, 0) + read_or_zero(p, s->grad_cell);
  dc = nyx_fma(dh * o, tanh_slope(y), dc);
  write(p, s->dgates, 4, 0, dc * g * sigmoid_slope(i));
  write(p, s->dgates, 4, 1, dc * read(p, s->cell_before, 1, 0) * sigmoid_slope(f));
  write(p, s->dgates, 4, 2, dc * i * tanh_slope(g));
  write(p, s->dgates, 4, 3, dh * y * sigmoid_slope(o));
  write(p, s->carry, 1, 0, dc * f);
}

NYX_FN void gru_forward(const spot *p) {
  const nyx_cell_step *s = p->s;
  T r = nyx_sigmoid(product_of(p, 4, 0)), z = nyx_sigmoid(product_of(p, 4, 1));
  T part = product_of(p, 4, 3), n = nyx_tanh(nyx_fma(r, part, product_of(p, 4, 2)));
  write(p, s->gates, 4, 0, r);
  write(p, s->gates, 4, 1, z);
  write(p, s->gates, 4, 2, n);
  write(p, s->gates, 4, 3, part);
  write(p, s->y, 1, 0, nyx_fma(z, read(p, s->before, 1, 0) - n, n));
}

NYX_FN void gru_backward(const spot *p) {
  const nyx_cell_step *s = p->s;
  T r = read(p, s->gates, 4, 0), z = read(p, s->gates, 4, 1);
  T n = read(p, s->gates, 4, 2), part = read(p, s->gates, 4, 3);
  T dh = gradient_of(p) + read(p, s->carry, 1, 0);
  T dn = dh * (K(1) - z) * tanh_slope(n);
  T dr = dn * part * sigmoid_slope(r);
  T dz = dh * (read(p, s->before, 1, 0) - n) * sigmoid_slope(z);
  write(p, s->dgates, 3, 0, dr);
  write(p, s->dgates, 3, 1, dz);
  write(p, s->dgates, 3, 2, dn);
  write(p, s->dhidden, 3, 0, dr);
  write(p, s->dhidden, 3, 1, dz);
  write(p, s->dhidden, 3, 2, dn * r);
  write(p, s->carry, 1, 0, dh * z);
}

NYX_FN void tanh_forward(const spot *p) {
  write(p, p->s->y, 1, 0, nyx_tanh(product_of(p, 1, 0)));
}
NYX_FN void tanh_backward(const spot *p) {
  write(p, p->s->dgates, 1, 0, gradient_of(p) * tanh_slope(read(p, p->s->y, 1, 0)));
}

NYX_FN void relu_forward(const spot *p) {
  T v = product_of(p, 1, 0);
  write(p, p->s->y, 1, 0, nyx_select(nyx_lt(v, K(0)), K(0), v));
}
NYX_FN void relu_backward(const spot *p) {
  T y = read(p, p->s->y, 1, 0), g = gradient_of(p);
  write(p, p->s->dgates, 1, 0, nyx_select(nyx_le(y, K(0)), K(0), g));
}

/* All rows and columns; whole vectors have a loop of their own, without branches. */
#define EVERYWHERE(name)                                                                 \
  static void all_##name(const nyx_cell_step *step) {                                    \
    const nyx_cell_step s = *step; /* its own: no store can change it */                 \
    int64_t whole = s.width / NYX_LANES * NYX_LANES;                                     \
    for (int64_t row = 0; row < s.rows; row++) {                                         \
      spot p = {&s, row, 0, NYX_LANES};                                                  \
      for (; p.column < whole; p.column += NYX_LANES) name(&p);                          \
      p.part = s.width - whole;                                                          \
      if (p.part > 0) name(&p);                                                          \
    }                                                                                    \
  }
EVERYWHERE(lstm_forward)
EVERYWHERE(lstm_backward)
EVERYWHERE(gru_forward)
EVERYWHERE(gru_backward)
EVERYWHERE(tanh_forward)
EVERYWHERE(tanh_backward)
EVERYWHERE(relu_forward)
EVERYWHERE(relu_backward)

extern const nyx_recurrence_kernel RECURRENCE_KERNEL;
const nyx_recurrence_kernel RECURRENCE_KERNEL = {
    .forward = {all_lstm_forward, all_gru_forward, all_tanh_forward, all_relu_forward},
    .backward = {all_lstm_backward, all_gru_backward, all_tanh_backward,
                 all_relu_backward}};
