/* Includes TYPED_SOURCE for T = float and again for double: loops written once over a
 * type T, with TINT an integer of its size and TYPED(name) the loops' names. Without a
 * guard: a file may have several such sources. */
#define T float
#define TINT int32_t
#define TYPED(name) name##_f32
#include TYPED_SOURCE
#undef T
#undef TINT
#undef TYPED

#define T double
#define TINT int64_t
#define TYPED(name) name##_f64
#include TYPED_SOURCE
#undef T
#undef TINT
#undef TYPED

#undef TYPED_SOURCE
