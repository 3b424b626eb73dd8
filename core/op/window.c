/* Sizes of sliding windows, checked. Read next: window.h. */
#include "window.h"

/* Larger numbers are mistakes; below it sums and products of two stay in range. */
#define LARGEST ((int64_t)1073741824)

nyx_status nyx__pair(nyx_context *ctx, const char *name, const nyx_value *value,
                     int64_t least, int64_t out[2]) {
  if (value->n < 1 || value->n > 2) {
    return nyx__error(ctx, ATTR_COUNT, name, value->n,
                      "one for both dimensions, or two (height, width)");
  }
  for (int i = 0; i < 2; i++) {
    out[i] = value->list[value->n == 2 ? i : 0];
    if (out[i] < least || out[i] > LARGEST) {
      return nyx__error(ctx, ATTR_RANGE, name, (long long)out[i],
                        least > 0 ? "1 to 1073741824" : "0 to 1073741824");
    }
  }
  return NYX_OK;
}

nyx_status nyx__windows_out(nyx_context *ctx, nyx__window *w, bool ceil_mode) {
  int64_t span[2], padded[2];
  bool fits = true;
  for (int i = 0; i < 2; i++) {
    if (__builtin_mul_overflow(w[i].kernel - 1, w[i].dilation, &span[i])) {
      span[i] = INT64_MAX - 1; /* longer than any input */
    }
    span[i]++;
    if (__builtin_add_overflow(w[i].in, 2 * w[i].pad, &padded[i])) padded[i] = INT64_MAX;
    int64_t over = ceil_mode ? w[i].stride - 1 : 0; /* what a window may stand out */
    if (span[i] > padded[i] && span[i] - padded[i] > over) fits = false;
  }
  if (!fits) {
    return nyx__error(ctx, WINDOW_SPAN, (long long)span[0], (long long)span[1],
                      (long long)padded[0], (long long)padded[1]);
  }
  for (int i = 0; i < 2; i++) {
    int64_t room = padded[i] - span[i];
    w[i].out = room < 0 ? 1 : room / w[i].stride + 1;
    bool more = ceil_mode && room > 0 && room % w[i].stride != 0;
    if (more && w[i].out * w[i].stride < w[i].in + w[i].pad) w[i].out++;
  }
  return NYX_OK;
}
