/* Shapes: how many elements, row-major strides, text, broadcasting, dimensions. No sizes
 * are trusted here: counts are checked for overflow. Read next: tensor.h. */
#include <stdio.h>
#include <string.h>

#include "tensor.h"

bool nyx__numel(int ndim, const int64_t *shape, size_t item, int64_t *out) {
  int64_t count = 1, room = 1; /* room: zero sizes count as 1, so that strides fit too */
  for (int d = 0; d < ndim; d++) {
    if (shape[d] < 0) return false;
    count *= shape[d] == 0 ? 0 : 1;
    if (__builtin_mul_overflow(room, shape[d] == 0 ? 1 : shape[d], &room)) return false;
  }
  int64_t bytes;
  if (item > INT64_MAX || __builtin_mul_overflow(room, (int64_t)item, &bytes))
    return false;
  if ((uint64_t)bytes > SIZE_MAX / 2) return false;
  *out = count * room;
  return true;
}

void nyx__strides(int ndim, const int64_t *shape, int64_t *stride) {
  int64_t step = 1;
  for (int d = ndim - 1; d >= 0; d--) {
    stride[d] = step;
    /* unsigned: sizes that overflow are refused later, when memory is asked for */
    step = (int64_t)((uint64_t)step * (uint64_t)(shape[d] == 0 ? 1 : shape[d]));
  }
}

char *nyx__shape_text(int ndim, const int64_t *shape, char *buffer, size_t size) {
  if (size == 0) return buffer;
  buffer[0] = '\0';
  size_t used = 0;
  for (int d = 0; d < ndim && used < size; d++) {
    int n =
        snprintf(buffer + used, size - used, d ? "x%lld" : "%lld", (long long)shape[d]);
    if (n < 0) break;
    used += (size_t)n;
  }
  return buffer;
}

/* From the last dimension to the first, so that out may be a or b: what is written was
 * read before. */
bool nyx__broadcast(int na, const int64_t *a, int nb, const int64_t *b, int *ndim,
                    int64_t *out) {
  int n = na > nb ? na : nb;
  for (int i = 1; i <= n; i++) {
    int64_t x = i <= na ? a[na - i] : 1, y = i <= nb ? b[nb - i] : 1;
    if (x != y && x != 1 && y != 1) return false;
    out[n - i] = x == 1 ? y : x;
  }
  *ndim = n;
  return true;
}

void nyx__broadcast_strides(const nyx_tensor *t, int ndim, int64_t *stride) {
  for (int i = 1; i <= ndim; i++) {
    int d = t->ndim - i;
    stride[ndim - i] = d < 0 || t->shape[d] == 1 ? 0 : t->stride[d];
  }
}

bool nyx__is_dense(int ndim, const int64_t *shape, const int64_t *stride) {
  int64_t step = 1;
  bool done[NYX_MAX_DIMS] = {false};
  for (int left = ndim; left > 0; left--) { /* the dimension that steps by `step` */
    int found = -1;
    for (int d = 0; d < ndim; d++) {
      if (done[d]) continue;
      if (shape[d] == 1 || (stride[d] == step && found < 0)) found = d;
      if (shape[d] == 1) break;
    }
    if (found < 0) return false;
    done[found] = true;
    step *= shape[found];
  }
  return true;
}

void nyx__last_strides(const int64_t shape[4], int64_t stride[4]) {
  const int64_t turned[] = {shape[0], shape[2], shape[3], shape[1]};
  int64_t step[4];
  nyx__strides(4, turned, step);
  stride[0] = step[0];
  stride[1] = step[3];
  stride[2] = step[1];
  stride[3] = step[2];
}

/* As PyTorch decides it, also where sizes of 1 leave it open. */
bool nyx__lies_last(int ndim, const int64_t *shape, const int64_t *stride) {
  static const int order[] = {1, 3, 2, 0};
  int64_t least = 0; /* what the next stride has to be */
  if (ndim != 4) return false;
  for (int i = 0; i < 4; i++) {
    int d = order[i];
    if (stride[d] < least || stride[d] == 0) return false;
    if (d == 0 && least == stride[1]) return false; /* row by row just as well */
    least = shape[d] > 1 ? stride[d] * shape[d] : stride[d];
  }
  return true;
}

void nyx__memory_order(int ndim, const int64_t *shape, const int64_t *stride,
                       int *order) {
  for (int i = 0; i < ndim; i++) { /* from the last dimension, which lies innermost */
    int at = i, d = ndim - 1 - i;
    for (int k = i - 1; k >= 0; k--) {
      int e = order[k];
      if (stride[e] < stride[d]) break;
      if (stride[e] == stride[d] && shape[e] <= shape[d]) continue;
      memmove(order + k + 1, order + k, (size_t)(at - k) * sizeof *order);
      at = k;
    }
    order[at] = d;
  }
}

bool nyx__close_gaps(int ndim, const int64_t *shape, const int64_t *stride,
                     int64_t *dense) {
  int order[NYX_MAX_DIMS];
  int64_t step = 1, closed[NYX_MAX_DIMS];
  if (nyx__is_dense(ndim, shape, stride)) {
    memmove(dense, stride, (size_t)ndim * sizeof *stride);
    return true;
  }
  if (nyx__overlaps(ndim, shape, stride)) return false;
  nyx__memory_order(ndim, shape, stride, order);
  for (int i = 0; i < ndim; i++) {
    closed[order[i]] = step;
    step *= shape[order[i]] == 0 ? 1 : shape[order[i]];
  }
  memcpy(dense, closed, (size_t)ndim * sizeof *dense);
  return true;
}

/* Sorted by stride, each dimension must step over all that lies below it. */
bool nyx__overlaps(int ndim, const int64_t *shape, const int64_t *stride) {
  int order[NYX_MAX_DIMS], n = 0;
  for (int d = 0; d < ndim; d++) {
    if (shape[d] == 0) return false;
    if (shape[d] == 1) continue;
    int at = n++;
    for (; at > 0 && stride[order[at - 1]] > stride[d]; at--) order[at] = order[at - 1];
    order[at] = d;
  }
  int64_t span = 1; /* elements that the smaller strides reach over */
  for (int i = 0; i < n; i++) {
    if (stride[order[i]] < span) return true;
    span += (shape[order[i]] - 1) * stride[order[i]];
  }
  return false;
}

int64_t nyx__said(const nyx_context *ctx, int64_t position) {
  bool based = ctx && position >= 0 && position < INT64_MAX;
  return based ? position + ctx->index_base : position;
}

nyx_status nyx__dim(nyx_context *ctx, int64_t dim, int ndim, int *out) {
  int64_t most = ndim == 0 ? 1 : ndim;
  int64_t d = dim < 0 ? dim + most : dim;
  if (d < 0 || d >= most)
    return nyx__error(ctx, DIM_RANGE, (long long)nyx__said(ctx, dim), ndim);
  *out = (int)d;
  return NYX_OK;
}
