/* The kernels of distance.h over one float type: included by distance_<type>.c, which
 * chooses the type and DISTANCE_KERNEL, the symbol. A vector holds differences from as
 * many of the turned rows, so that nothing is added up across lanes until a gradient is
 * complete. Read next: distance.h, softmax_lanes.h. */
#include "cpu.h"
#include "distance.h"
#include "softmax_lanes.h"

/* Rows of x that go through the turned ones together, in a gradient; columns of these. */
#define ROWS 4
#define PAIR 2
#define COLUMNS 4
#define CHUNK (2048 / (int64_t)sizeof(S)) /* weights that are made at a time */

NYX_FN T with(nyx_distance kind, T sum, T difference) {
  if (kind == NYX_DISTANCE_SUM) return sum + nyx_abs(difference);
  if (kind == NYX_DISTANCE_ROOT) return nyx_fma(difference, difference, sum);
  return nyx_max(sum, nyx_abs(difference));
}

/* Distances of `rows` rows of x from `vectors` vectors of turned ones from j on. */
NYX_FN void distances(nyx_distance kind, const nyx_distance_job *job, int64_t i, int rows,
                      int64_t j, int vectors) {
  const S *x = (const S *)job->x + i * job->width, *y = (const S *)job->turned + j;
  S *out = (S *)job->out + i * job->n + j;
  T sum[ROWS][2];
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vectors; v++) sum[r][v] = K(0);
  for (int64_t k = 0; k < job->width; k++, y += job->step) {
    T other[2];
    for (int v = 0; v < vectors; v++) other[v] = nyx__load(y + v * NYX_LANES);
    for (int r = 0; r < rows; r++)
      for (int v = 0; v < vectors; v++)
        sum[r][v] = with(kind, sum[r][v], K(x[r * job->width + k]) - other[v]);
  }
  for (int r = 0; r < rows; r++)
    for (int v = 0; v < vectors; v++) {
      const int64_t at = v * NYX_LANES, left = job->n - j - at;
      if (kind == NYX_DISTANCE_ROOT) sum[r][v] = nyx_sqrt(sum[r][v]);
      store_lanes(out + r * job->n + at, left < NYX_LANES ? left : NYX_LANES, sum[r][v]);
    }
}

NYX_FN void forward(nyx_distance kind, const nyx_distance_job *job, int64_t begin,
                    int64_t end) {
  int64_t i = begin;
  for (; i + ROWS <= end; i += ROWS) {
    int64_t j = 0;
    for (; j + NYX_LANES < job->n; j += 2 * NYX_LANES)
      distances(kind, job, i, ROWS, j, 2);
    if (j < job->n) distances(kind, job, i, ROWS, j, 1);
  }
  for (; i < end; i++)
    for (int64_t j = 0; j < job->n; j += NYX_LANES) distances(kind, job, i, 1, j, 1);
}

/* In how many columns row i is as far from turned ones, from j on, as it is at all. */
NYX_FN T columns_at(const nyx_distance_job *job, int64_t i, int64_t j, T at) {
  const S *x = (const S *)job->x + i * job->width, *y = (const S *)job->turned + j;
  T count = K(0);
  for (int64_t k = 0; k < job->width; k++, y += job->step)
    count += nyx_select(nyx_eq(nyx_abs(K(x[k]) - nyx__load(y)), at), K(1), K(0));
  return count;
}

/* What the differences of a row from turned ones are multiplied by, or their signs. */
NYX_FN void weigh(nyx_distance kind, const nyx_distance_job *job, int64_t i, int64_t from,
                  int64_t n, S *weight) {
  const S *g = (const S *)job->g + i * job->n + from;
  const S *at = (const S *)job->at + i * job->n + from;
  EACH_VECTOR(j, part, 0, n) {
    T w = load_lanes(g + j, part);
    if (kind != NYX_DISTANCE_SUM) {
      T d = load_lanes(at + j, part), zero = K(0);
      if (kind == NYX_DISTANCE_MOST) d = columns_at(job, i, from + j, d);
      w = nyx_select(nyx_eq(d, zero), zero, w / d);
    }
    nyx__store(weight + j, w);
  }
}

/* Adds to the gradients of two rows, in `columns` columns from k on, what comes from n
 * turned ones from `from` on. */
NYX_FN void add_columns(nyx_distance kind, const nyx_distance_job *job,
                        const int64_t i[PAIR], int64_t k, int columns, int64_t from,
                        int64_t n, const S *weight) {
  const S *y = (const S *)job->turned + k * job->step + from;
  T sum[PAIR][COLUMNS];
  for (int r = 0; r < PAIR; r++)
    for (int c = 0; c < columns; c++) sum[r][c] = K(0);
  EACH_VECTOR(j, part, 0, n) {
    T w[PAIR], at[PAIR];
    for (int r = 0; r < PAIR; r++) {
      w[r] = nyx__load(weight + r * CHUNK + j);
      if (kind == NYX_DISTANCE_MOST)
        at[r] = load_lanes((const S *)job->at + i[r] * job->n + from + j, part);
    }
    for (int c = 0; c < columns; c++) {
      const T other = nyx__load(y + c * job->step + j);
      for (int r = 0; r < PAIR; r++) {
        T d = K(((const S *)job->x)[i[r] * job->width + k + c]) - other;
        if (kind == NYX_DISTANCE_ROOT) {
          sum[r][c] = nyx_fma(w[r], d, sum[r][c]);
          continue;
        }
        T side = w[r] * nyx_sign(d);
        if (kind == NYX_DISTANCE_MOST)
          side = nyx_select(nyx_eq(nyx_abs(d), at[r]), side, K(0));
        sum[r][c] += side;
      }
    }
  }
  for (int r = 0; r < PAIR; r++)
    for (int c = 0; c < columns; c++)
      if (r == 0 || i[r] != i[0])
        ((S *)job->out)[i[r] * job->width + k + c] += total(sum[r][c]);
}

NYX_FN void gradient(nyx_distance kind, const nyx_distance_job *job, int64_t begin,
                     int64_t end) {
  _Alignas(64) S weight[PAIR * CHUNK];
  memset((S *)job->out + begin * job->width, 0,
         (size_t)((end - begin) * job->width) * sizeof(S));
  for (int64_t row = begin; row < end; row += PAIR) {
    const int64_t i[PAIR] = {row, row + 1 < end ? row + 1 : row};
    for (int64_t from = 0; from < job->n; from += CHUNK) {
      const int64_t n = job->n - from < CHUNK ? job->n - from : CHUNK;
      for (int r = 0; r < PAIR; r++) weigh(kind, job, i[r], from, n, weight + r * CHUNK);
      int64_t k = 0;
      for (; k + COLUMNS <= job->width; k += COLUMNS)
        add_columns(kind, job, i, k, COLUMNS, from, n, weight);
      for (; k < job->width; k++) add_columns(kind, job, i, k, 1, from, n, weight);
    }
  }
}

#define KERNELS(name, kind)                                                              \
  static void forward_##name(const nyx_distance_job *job, int64_t begin, int64_t end) {  \
    forward(kind, job, begin, end);                                                      \
  }                                                                                      \
  static void gradient_##name(const nyx_distance_job *job, int64_t begin, int64_t end) { \
    gradient(kind, job, begin, end);                                                     \
  }
KERNELS(sum, NYX_DISTANCE_SUM)
KERNELS(root, NYX_DISTANCE_ROOT)
KERNELS(most, NYX_DISTANCE_MOST)

extern const nyx_distance_kernel DISTANCE_KERNEL;
const nyx_distance_kernel DISTANCE_KERNEL = {
    .forward = {forward_sum, forward_root, forward_most},
    .gradient = {gradient_sum, gradient_root, gradient_most},
};
