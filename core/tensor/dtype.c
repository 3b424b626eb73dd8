/* Element types: names, promotion, and the conversion of single elements. Kernels convert
 * whole rows (core/device/cpu) by the same rules:
 *   to an integer   integers wrap around, as in C; floats drop their fraction, stop at
 * the type's limits, and NaN gives 0 to bool         everything but zero is true, NaN too
 *   to a float      rounded once, to nearest even; past the largest, infinity
 *   to a complex    the real part; the imaginary part is 0. Single elements are read as
 *                   their real part, tensors (core/op/complex.c) are not
 * Read next: dtype.def, tensor.h. */
#include <math.h>
#include <string.h>

#include "tensor.h"

const nyx__dtype_row nyx__dtype_rows[NYX_DTYPE_COUNT] = {
#define NYX_DTYPE(id, name, short_name, type, kind)                                      \
  [NYX_##id] = {name, short_name, sizeof(type), NYX_KIND_##kind},
#include "dtype.def"
#undef NYX_DTYPE
};

static bool valid(nyx_dtype dtype) {
  return (unsigned)dtype < NYX_DTYPE_COUNT;
}

const char *nyx_dtype_name(nyx_dtype dtype) {
  return valid(dtype) ? nyx__dtype_rows[dtype].name : "unknown";
}

size_t nyx_dtype_size(nyx_dtype dtype) {
  return valid(dtype) ? nyx__dtype_rows[dtype].size : 0;
}

nyx_dtype_kind nyx_dtype_kind_of(nyx_dtype dtype) {
  return valid(dtype) ? nyx__dtype_rows[dtype].kind : NYX_KIND_BOOL;
}

bool nyx_dtype_is_float(nyx_dtype dtype) {
  return nyx_dtype_kind_of(dtype) == NYX_KIND_FLOAT;
}

bool nyx_dtype_is_complex(nyx_dtype dtype) {
  return nyx_dtype_kind_of(dtype) == NYX_KIND_COMPLEX;
}

nyx_dtype nyx_dtype_real(nyx_dtype dtype) {
  return dtype == NYX_COMPLEX64    ? NYX_FLOAT32
         : dtype == NYX_COMPLEX128 ? NYX_FLOAT64
                                   : dtype;
}

bool nyx_dtype_find(const char *name, nyx_dtype *out) {
  if (!name) return false;
  for (int i = 0; i < NYX_DTYPE_COUNT; i++) {
    if (strcmp(name, nyx__dtype_rows[i].name) == 0 ||
        strcmp(name, nyx__dtype_rows[i].short_name) == 0) {
      *out = (nyx_dtype)i;
      return true;
    }
  }
  return false;
}

nyx_dtype nyx_dtype_promote(nyx_dtype a, nyx_dtype b) {
  if (a == b) return a;
  nyx_dtype_kind ka = nyx_dtype_kind_of(a), kb = nyx_dtype_kind_of(b);
  if (ka == NYX_KIND_COMPLEX || kb == NYX_KIND_COMPLEX) {
    bool wide = nyx_dtype_real(a) == NYX_FLOAT64 || nyx_dtype_real(b) == NYX_FLOAT64;
    return wide ? NYX_COMPLEX128 : NYX_COMPLEX64;
  }
  if (ka != kb) return ka > kb ? a : b;
  size_t sa = nyx_dtype_size(a), sb = nyx_dtype_size(b);
  if (sa != sb) return sa > sb ? a : b;
  /* two of equal kind and size: one of the pairs that hold different values */
  return ka == NYX_KIND_FLOAT ? NYX_FLOAT32 : NYX_INT32;
}

/* Half floats. Bits: 1 sign, 5 exponent (bias 15), 10 fraction; bfloat16 is the upper
 * half of a float32. */

static uint32_t float_bits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, sizeof bits);
  return bits;
}

static float bits_float(uint32_t bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}

float nyx__half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16;
  uint32_t exponent = h >> 10 & 31, fraction = h & 1023;
  if (exponent == 0) { /* zero, or a multiple of 2^-24 */
    float size = (float)fraction * 0x1p-24f;
    return sign ? -size : size;
  }
  if (exponent == 31) { /* a signalling NaN becomes quiet, as in hardware */
    uint32_t nan = fraction ? 0x400000 : 0;
    return bits_float(sign | 0x7F800000 | nan | fraction << 13);
  }
  return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t nyx__float_to_half(float f) {
  uint32_t bits = float_bits(f), sign = bits >> 16 & 0x8000, size = bits & 0x7FFFFFFF;
  if (size > 0x7F800000) return (uint16_t)(sign | 0x7E00 | (size >> 13 & 1023));
  if (size >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* 65520 and more */
  if (size >= 0x38800000)                                   /* 2^-14 and more: normal */
    return (uint16_t)(sign | (size + 0xFFF + (size >> 13 & 1) - 0x38000000) >> 13);
  if (size <= 0x33000000) return (uint16_t)sign; /* half the smallest, or less */
  uint32_t shift = 126 - (size >> 23);           /* 14 to 24 bits are lost */
  uint32_t digits = (size & 0x7FFFFF) | 0x800000;
  uint32_t lost = digits & ((1u << shift) - 1), half = 1u << (shift - 1);
  uint32_t kept = digits >> shift;
  if (lost > half || (lost == half && (kept & 1))) kept++;
  return (uint16_t)(sign | kept);
}

float nyx__bfloat_to_float(uint16_t h) {
  uint32_t bits = (uint32_t)h << 16;
  if ((bits & 0x7FFFFFFF) > 0x7F800000) bits |= 0x400000;
  return bits_float(bits);
}

uint16_t nyx__float_to_bfloat(float f) {
  uint32_t bits = float_bits(f);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40);
  return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* value as a float whose last bit is set where digits were lost ("round to odd"):
 * rounding that to a half type gives what rounding `value` itself would. */
static float odd_float(double value) {
  float f = (float)value;
  if (!isfinite(f) || (double)f == value || (float_bits(f) & 1)) return f;
  bool away = fabs((double)f) > fabs(value); /* the nearest float is the larger one */
  return bits_float(float_bits(f) + (away ? -1u : 1u));
}

/* One element */

/* The integer part of value between low and high; 0 for NaN. `end` is high + 1, a power
 * of two and so exact. */
static int64_t clamp_to_int(double value, int64_t low, int64_t high, double end) {
  if (value != value) return 0;
  if (value >= end) return high;
  if (value <= (double)low) return low;
  return (int64_t)value;
}

double nyx__load_double(nyx_dtype dtype, const void *p) {
  switch (dtype) {
    case NYX_FLOAT32: return (double)*(const float *)p;
    case NYX_FLOAT64: return *(const double *)p;
    case NYX_FLOAT16: return (double)nyx__half_to_float(*(const uint16_t *)p);
    case NYX_BFLOAT16: return (double)nyx__bfloat_to_float(*(const uint16_t *)p);
    case NYX_COMPLEX64: return (double)*(const float *)p;
    case NYX_COMPLEX128: return *(const double *)p;
    default: return (double)nyx__load_int(dtype, p);
  }
}

int64_t nyx__load_int(nyx_dtype dtype, const void *p) {
  switch (dtype) {
    case NYX_INT8: return *(const int8_t *)p;
    case NYX_UINT8: return *(const uint8_t *)p;
    case NYX_INT32: return *(const int32_t *)p;
    case NYX_INT64: return *(const int64_t *)p;
    case NYX_BOOL: return *(const uint8_t *)p != 0;
    default:
      return clamp_to_int(nyx__load_double(dtype, p), INT64_MIN, INT64_MAX, 0x1p63);
  }
}

void nyx__store_double(nyx_dtype dtype, void *p, double value) {
  switch (dtype) {
    case NYX_FLOAT32: *(float *)p = (float)value; break;
    case NYX_FLOAT64: *(double *)p = value; break;
    case NYX_FLOAT16: *(uint16_t *)p = nyx__float_to_half(odd_float(value)); break;
    case NYX_BFLOAT16: *(uint16_t *)p = nyx__float_to_bfloat(odd_float(value)); break;
    case NYX_INT8: *(int8_t *)p = (int8_t)clamp_to_int(value, -128, 127, 128); break;
    case NYX_UINT8: *(uint8_t *)p = (uint8_t)clamp_to_int(value, 0, 255, 256); break;
    case NYX_INT32:
      *(int32_t *)p = (int32_t)clamp_to_int(value, INT32_MIN, INT32_MAX, 0x1p31);
      break;
    case NYX_INT64:
      *(int64_t *)p = clamp_to_int(value, INT64_MIN, INT64_MAX, 0x1p63);
      break;
    case NYX_BOOL: *(uint8_t *)p = value != 0; break;
    case NYX_COMPLEX64:
      ((float *)p)[0] = (float)value;
      ((float *)p)[1] = 0;
      break;
    case NYX_COMPLEX128:
      ((double *)p)[0] = value;
      ((double *)p)[1] = 0;
      break;
    case NYX_DTYPE_COUNT: break;
  }
}

void nyx__store_int(nyx_dtype dtype, void *p, int64_t value) {
  switch (dtype) {
    case NYX_INT8: *(int8_t *)p = (int8_t)(uint8_t)value; break;
    case NYX_UINT8: *(uint8_t *)p = (uint8_t)value; break;
    case NYX_INT32: *(int32_t *)p = (int32_t)(uint32_t)value; break;
    case NYX_INT64: *(int64_t *)p = value; break;
    case NYX_BOOL: *(uint8_t *)p = value != 0; break;
    default: nyx__store_double(dtype, p, (double)value);
  }
}
