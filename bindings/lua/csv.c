/* Reading comma-separated values, RFC 4180: quoted fields, doubled quotes, line breaks
 * inside quotes, LF, CRLF or CR between rows. Numbers go straight into a tensor.
 * Read next: lua/nyx/data/csv.lua. */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binding.h"

/* Where the parser is, and the field it read last. */
typedef struct parser {
  const char *at, *end;
  char separator;
  int64_t line;   /* of the field's first character, from 1 */
  int64_t column; /* from 1 */
  int64_t row_line;
  const char *field; /* NUL-terminated only where `scratch` was used */
  size_t length;
  bool quoted, last; /* last: of its row */
  char *scratch;     /* room for any field */
  char problem[160]; /* what is wrong, with line and column; "" */
} parser;

static bool wrong(parser *p, const char *what) {
  snprintf(p->problem, sizeof p->problem, "line %lld, column %lld: %s",
           (long long)p->line, (long long)p->column, what);
  return false;
}

/* The field after an opening quote, doubled quotes undone. */
static bool read_quoted(parser *p) {
  char *to = p->scratch;
  const char *from = p->at + 1;
  int64_t breaks = 0;
  for (;; from++) {
    if (from == p->end) {
      snprintf(p->problem, sizeof p->problem, "line %lld: a quoted field has no end",
               (long long)p->line);
      return false;
    }
    if (*from == '"') {
      if (from + 1 == p->end || from[1] != '"') break;
      from++;
    }
    if (*from == '\n') breaks++;
    *to++ = *from;
  }
  p->field = p->scratch;
  p->length = (size_t)(to - p->scratch);
  p->at = from + 1;
  p->line += breaks;
  p->quoted = true;
  return true;
}

/* Reads the next field and what follows it. */
static bool read_field(parser *p) {
  p->column++;
  p->quoted = false;
  if (p->at < p->end && *p->at == '"') {
    if (!read_quoted(p)) return false;
  } else {
    p->field = p->at;
    while (p->at < p->end && *p->at != p->separator && *p->at != '\n' && *p->at != '\r' &&
           *p->at != '"')
      p->at++;
    p->length = (size_t)(p->at - p->field);
  }
  p->last = true;
  if (p->at == p->end) return true;
  char c = *p->at++;
  if (c == p->separator) {
    p->last = false;
    return true;
  }
  if (c == '\r' && p->at < p->end && *p->at == '\n') p->at++;
  if (c == '\n' || c == '\r') return true;
  return wrong(p, "text follows the field; quote all of a field that contains quotes");
}

/* Begins the next row; false at the end of the text. */
static bool next_row(parser *p) {
  if (p->at == p->end) return false;
  p->line++;
  p->row_line = p->line;
  p->column = 0;
  return true;
}

static bool right_width(parser *p, int64_t width) {
  if (p->column == width) return true;
  snprintf(p->problem, sizeof p->problem,
           "line %lld: %lld fields, expected %lld as in the first row",
           (long long)p->row_line, (long long)p->column, (long long)width);
  return false;
}

/* The field as a number. Only what a table would hold: decimal, or nan and inf. */
static bool read_number(parser *p, locale_t plain, double *out) {
  const char *from = p->field, *end = p->field + p->length;
  char text[64];
  while (from < end && (*from == ' ' || *from == '\t')) from++;
  while (end > from && (end[-1] == ' ' || end[-1] == '\t')) end--;
  size_t n = (size_t)(end - from);
  if (n == 0 || n >= sizeof text) return false;
  memcpy(text, from, n);
  text[n] = 0;
  const char *word = text + (*text == '-' || *text == '+');
  if (strspn(text, "0123456789.+-eE") != n && strcasecmp(word, "nan") != 0 &&
      strcasecmp(word, "inf") != 0)
    return false;
  char *stop;
  *out = strtod_l(text, &stop, plain);
  return stop == text + n;
}

/* Whether an integer dtype holds a number; floats hold all. */
static bool holds(nyx_dtype dtype, double x) {
  switch (dtype) {
    case NYX_INT8: return x == floor(x) && x >= -128 && x <= 127;
    case NYX_UINT8: return x == floor(x) && x >= 0 && x <= 255;
    case NYX_INT32: return x == floor(x) && x >= -0x1p31 && x < 0x1p31;
    case NYX_INT64: return x == floor(x) && x >= -0x1p63 && x < 0x1p63;
    case NYX_BOOL: return x == 0 || x == 1;
    default: return true;
  }
}

static bool no_number(parser *p, nyx_dtype dtype, bool first) {
  bool cut = p->length > 30;
  snprintf(p->problem, sizeof p->problem, "line %lld, column %lld: '%.*s%s' is no %s%s",
           (long long)p->row_line, (long long)p->column, cut ? 27 : (int)p->length,
           p->field, cut ? "..." : "",
           nyx_dtype_is_float(dtype) ? "number" : nyx_dtype_name(dtype),
           first ? "; pass {header = true} if this row has names" : "");
  return false;
}

/* Reads all rows into cells; false with a problem. */
static bool read_numbers(parser *p, nyx_dtype dtype, double *cells, int64_t *rows,
                         int64_t *width) {
  locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  int64_t used = 0;
  bool ok = plain != (locale_t)0;
  if (!ok) snprintf(p->problem, sizeof p->problem, "not enough memory");
  while (ok && next_row(p)) {
    do {
      ok = read_field(p);
      if (ok && !(read_number(p, plain, &cells[used]) && holds(dtype, cells[used])))
        ok = no_number(p, dtype, *rows == 0 && *width < 0);
      used++;
    } while (ok && !p->last);
    if (*width < 0) *width = p->column;
    ok = ok && right_width(p, *width);
    *rows += ok;
  }
  if (plain) freelocale(plain);
  return ok;
}

/* Pushes a list of rows of strings; `one`: only the next row's list. */
static bool push_rows(lua_State *L, parser *p, int64_t *width, bool one) {
  int rows = 0;
  if (!one) lua_newtable(L);
  while (next_row(p)) {
    lua_createtable(L, *width > 0 ? (int)*width : 0, 0);
    do {
      if (!read_field(p)) return false;
      lua_pushlstring(L, p->field, p->length);
      lua_rawseti(L, -2, (int)p->column);
    } while (!p->last);
    if (*width < 0) *width = p->column;
    if (!right_width(p, *width)) return false;
    if (one) return true;
    lua_rawseti(L, -2, ++rows);
  }
  return true;
}

/* How many fields there are at most. */
static size_t most_fields(const parser *p) {
  size_t n = 1;
  for (const char *c = p->at; c < p->end; c++)
    n += *c == p->separator || *c == '\n' || *c == '\r';
  return n;
}

/* Memory of Lua's, which the collector frees. */
static void *scratch(lua_State *L, size_t bytes) {
  return lua_newuserdatauv(L, bytes ? bytes : 1, 0);
}

/* csv(text, separator, dtype or "string", header, skip): a tensor (rows, columns), or a
 * list of rows; and the names in the first row, if `header`. nil and a message otherwise.
 */
static int csv(lua_State *L) {
  nyx__lua *s = nyx__lua_state(L);
  size_t length;
  const char *text = luaL_checklstring(L, 1, &length);
  parser p = {.at = text, .end = text + length, .separator = *luaL_checkstring(L, 2)};
  bool strings = strcmp(luaL_checkstring(L, 3), "string") == 0;
  nyx_dtype dtype = strings ? NYX_FLOAT32 : nyx__lua_dtype(L, s, 3, "data.csv", "dtype");
  bool header = lua_toboolean(L, 4);
  if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
    p.at += 3; /* byte order mark */
  for (int64_t skip = luaL_checkinteger(L, 5); skip > 0 && p.at < p.end; skip--) {
    const char *next = memchr(p.at, '\n', (size_t)(p.end - p.at));
    p.at = next ? next + 1 : p.end;
    p.line++;
  }
  int64_t width = -1, rows = 0;
  p.scratch = scratch(L, (size_t)(p.end - p.at));
  if (!header)
    lua_pushnil(L);
  else if (!push_rows(L, &p, &width, true))
    return nyx__lua_failure(L, p.problem);
  int names = lua_gettop(L);
  if (strings) {
    if (!push_rows(L, &p, &width, false)) return nyx__lua_failure(L, p.problem);
  } else {
    double *cells = scratch(L, most_fields(&p) * sizeof(double));
    if (!read_numbers(&p, dtype, cells, &rows, &width))
      return nyx__lua_failure(L, p.problem);
    if (rows == 0) return nyx__lua_failure(L, "there are no rows");
    nyx__box *box = nyx__lua_push_box(L, s, NYX_LUA_META);
    nyx_tensor *t;
    nyx_status status;
    NYX_LUA_RETRY(L, s, status,
                  nyx_tensor_from_data(s->ctx, NYX_FLOAT64, 2, (int64_t[]){rows, width},
                                       cells, &t));
    nyx__lua_try(L, s, status);
    nyx__lua_fill(s, box, t, true);
    nyx_value to = NYX_I(dtype);
    nyx__lua_apply(L, s, s->cast, &t, 1, &to);
  }
  lua_pushvalue(L, names);
  return 2;
}

const luaL_Reg nyx__lua_csv_functions[] = {{"csv", csv}, {NULL, NULL}};
