/* Kernels that int8, uint8 and bool have in their own width: every pair of bytes must
 * give what int32's kernel of the row gives, its result cut to the width, and quotients
 * of bytes, which have none, what plain C gives; at any length and address, and nothing
 * beyond the last element is touched. Read next: kernels/cpu/elementwise_rows.h. */
#include <string.h>

#include "check.h"
#include "core/device/cpu/cpu.h"
#include "core/op/ops.h"
#include "kernels/cpu/elementwise.h"

enum { ALL = 256 * 256, MOST = 130, GUARD = 64 };

static const char *const paths[] = {"base", "avx2", "avx512"};
static const nyx_dtype dtypes[NYX_OWN_COUNT] = {NYX_INT8, NYX_UINT8, NYX_BOOL};

static uint8_t x[ALL + 8], y[ALL + 8], z[ALL + 8], out[ALL + 8];
static int32_t wide[3][ALL], wide_out[ALL];
static uint8_t want[ALL];

static const nyx_row *row_of(int id) {
  const nyx_op *ops;
  nyx__elementwise_ops(&ops);
  return ops[id].row;
}

static nyx_elementwise_fn own_kernel(const nyx_elementwise_kernels *e, int own, int id) {
  nyx_elementwise_fn fn = e->own[own][id];
  return fn || own != NYX_OWN_UINT8 ? fn : e->own[NYX_OWN_INT8][id];
}

/* All pairs; the third operand runs through all bytes too. */
static void fill(void) {
  for (int i = 0; i < ALL; i++) {
    x[i] = (uint8_t)i;
    y[i] = (uint8_t)(i >> 8);
    z[i] = (uint8_t)(i * 7 + (i >> 8) * 3);
  }
}

/* want[i] by way of int32. */
static void expect(const nyx_elementwise_kernels *e, int own, int id,
                   const double *attr) {
  const nyx_dtype dtype = dtypes[own];
  const void *in[5] = {wide[0], wide[1], wide[2], wide[0], wide[0]};
  e->gather[dtype][NYX_IN_INT32](ALL, x, 1, wide[0]);
  e->gather[dtype][NYX_IN_INT32](ALL, y, 1, wide[1]);
  e->gather[dtype][NYX_IN_INT32](ALL, z, 1, wide[2]);
  if (row_of(id)->result_bool) {
    e->rows[NYX_IN_INT32][id][0](ALL, in, want, attr);
  } else {
    e->rows[NYX_IN_INT32][id][0](ALL, in, wide_out, attr);
    e->scatter[NYX_IN_INT32][dtype](ALL, wide_out, want, 1);
  }
}

static int first_wrong(const uint8_t *got, const uint8_t *expected, int n) {
  for (int i = 0; i < n; i++)
    if (got[i] != expected[i]) return i;
  return -1;
}

static void check_pairs(const nyx_cpu_kernels *k, int own, int id, const double *attr) {
  const void *in[5] = {x, y, z, x, x};
  expect(k->elementwise, own, id, attr);
  own_kernel(k->elementwise, own, id)(ALL, in, out, attr);
  int at = first_wrong(out, want, ALL);
  CHECK_AT(at < 0, row_of(id)->name, " of %s on %s: bytes %d %d %d gave %d, expected %d",
           nyx_dtype_name(dtypes[own]), k->name, x[at < 0 ? 0 : at], y[at < 0 ? 0 : at],
           z[at < 0 ? 0 : at], out[at < 0 ? 0 : at], want[at < 0 ? 0 : at]);
}

/* Short calls from odd places, every other one into its first operand. */
static void check_lengths(const nyx_cpu_kernels *k, int own, int id, const double *attr) {
  nyx_elementwise_fn fn = own_kernel(k->elementwise, own, id);
  uint8_t to[MOST + 2 * GUARD];
  expect(k->elementwise, own, id, attr);
  for (int n = 0; n <= MOST; n++) {
    const int from = (n * 509 + 3) % (ALL - MOST), shift = 1 + n % 5;
    const void *in[5] = {x + from, y + from, z + from, x, x};
    memset(to, 0xa5, sizeof to);
    if (n % 2) {
      memcpy(to + GUARD + shift, x + from, (size_t)n);
      in[0] = to + GUARD + shift;
    }
    fn(n, in, to + GUARD + shift, attr);
    CHECK_AT(first_wrong(to + GUARD + shift, want + from, n) < 0, row_of(id)->name,
             " of %s on %s: %d elements", nyx_dtype_name(dtypes[own]), k->name, n);
    for (int i = 0; i < (int)sizeof to; i++)
      if (i < GUARD + shift || i >= GUARD + shift + n)
        CHECK_AT(to[i] == 0xa5, row_of(id)->name,
                 " on %s wrote %d places from %d elements", k->name, i - GUARD - shift,
                 n);
  }
}

static void rows(void) {
  fill();
  for (int path = 0; path < 3; path++) {
    const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
    for (int own = 0; k && own < NYX_OWN_COUNT; own++) {
      const double attr[2] = {own == NYX_OWN_INT8 ? -3 : 1, own == NYX_OWN_BOOL ? 1 : 90};
      int found = 0;
      for (int id = 0; id < NYX_KERNEL_COUNT; id++) {
        if (!own_kernel(k->elementwise, own, id)) continue;
        found++;
        check_pairs(k, own, id, attr);
        check_lengths(k, own, id, attr);
      }
      CHECK_AT(found >= 20, nyx_dtype_name(dtypes[own]), " has %d rows of its own",
               found);
    }
  }
}

/* What is asked of clamp's limits: infinite ones and NaN are as in int32. */
static void limits(void) {
  fill();
  const double all[][2] = {{-INFINITY, INFINITY}, {-INFINITY, 5}, {1, INFINITY},
                           {(double)NAN, 7},      {0, 0},         {0.5, 1}};
  for (int path = 0; path < 3; path++) {
    const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
    for (int own = 0; k && own < NYX_OWN_COUNT; own++)
      for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (own != NYX_OWN_BOOL || !(all[i][1] > 1))
          check_pairs(k, own, NYX_KERNEL_clamp, all[i]);
  }
}

/* Rounded down, or towards zero; nothing by 0. */
static int quotient_down(int a, int b) {
  const int q = b ? a / b : 0;
  return q - (b && q * b != a && (a < 0) != (b < 0));
}
static int left_down(int a, int b) {
  return b ? a - quotient_down(a, b) * b : 0;
}
static int left_cut(int a, int b) {
  return b ? a % b : 0;
}

/* Quotients of bytes have no kernels of their own: of every pair int32's, cut to the
 * width, give what plain C does. */
static void quotients(void) {
  static const struct {
    int id;
    int (*of)(int a, int b);
  } all[] = {{NYX_KERNEL_floor_divide, quotient_down},
             {NYX_KERNEL_remainder, left_down},
             {NYX_KERNEL_fmod, left_cut}};
  fill();
  for (int path = 0; path < 3; path++) {
    const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
    for (int own = 0; k && own < NYX_OWN_BOOL; own++)
      for (int f = 0; f < 3; f++) {
        uint8_t plain[ALL];
        expect(k->elementwise, own, all[f].id, (const double[2]){0, 0});
        for (int i = 0; i < ALL; i++)
          plain[i] = (uint8_t)(own == NYX_OWN_INT8 ? all[f].of((int8_t)x[i], (int8_t)y[i])
                                                   : all[f].of(x[i], y[i]));
        const int at = first_wrong(want, plain, ALL);
        CHECK_AT(at < 0, row_of(all[f].id)->name, " of %s on %s: bytes %d %d gave %d",
                 nyx_dtype_name(dtypes[own]), k->name, x[at < 0 ? 0 : at],
                 y[at < 0 ? 0 : at], want[at < 0 ? 0 : at]);
      }
  }
}

/* What is no number stays none where only bits that are cut off say so; its sign stays.
 */
static void nans_as_halves(void) {
  static const uint32_t bits[] = {0x7f800001u, 0xff80ffffu, 0x7fc00000u, 0xffffffffu};
  uint32_t from[MOST];
  uint16_t to[2 * MOST];
  for (int i = 0; i < MOST; i++) from[i] = bits[i % 4];
  for (int path = 0; path < 3; path++) {
    const nyx_cpu_kernels *k = nyx__cpu_path_find(paths[path]);
    for (int half = 0; k && half < 2; half++)
      for (int n = 1; n <= 70; n++)
        for (int step = 1; step <= 2; step++) {
          const nyx_dtype dtype = half ? NYX_FLOAT16 : NYX_BFLOAT16;
          const int infinite = half ? 0x7c00 : 0x7f80;
          int wrong = 0;
          k->elementwise->scatter[NYX_IN_FLOAT32][dtype](n, from, to, step);
          for (int i = 0; i < n; i++)
            wrong += (to[i * step] & 0x7fff) <= infinite ||
                     to[i * step] >> 15 != (int)(from[i] >> 31);
          CHECK_AT(wrong == 0, nyx_dtype_name(dtype), " on %s: %d of %d, %d apart",
                   k->name, wrong, n, step);
        }
  }
}

int main(void) {
  RUN(nans_as_halves);
  RUN(rows);
  RUN(quotients);
  RUN(limits);
  return check_done();
}
