-- nyx.prefilter: the rows of a matrix with the largest products with a query, exactly, by
-- looking at bytes first. Each row r is kept as int8 b with a scale s, and a bound e of what
-- that leaves out, |r - s b| <= e; a query q becomes t c with |q - t c| <= f. Then
--
--   r q <= s t (b c) + e |q| + |s b| f        (Cauchy and Schwarz)
--
-- Only rows whose right side reaches the k-th best score so far are scored in float32. For
-- "dot" the rows lie by norm, largest first: where |r| |q| does not reach it, no later row
-- does. All bounds leave room for what float32 rounds, in them and in scores.
-- Read next: core/linalg/low.c (products of bytes), docs/guide.md.
local nyx = require "nyx"
local check = require "nyx.check"

local Prefilter = nyx.class "Prefilter"

local CHUNK = 16384           -- rows that are prepared, pairs that are scored, at a time
local BLOCK, MOST = 4096, 2 ^ 17 -- rows that are looked at together, at least and at most
local GROUP = 256             -- queries that are
local PAIRS = 2 ^ 22          -- of these with such rows, about
local SMALL = 1e-30           -- scales are at least this: what is smaller counts as error
local LARGE = 1e30            -- norms are at most this, products of norms at most 1e37
-- Room for rounding: of a sum of d products relative to the norms, of norms, of what is below
-- the smallest normal number.
local function rounding(d) return (d + 16) * 2 ^ -22 end
local WIDER, ULPS, TINY = 1 + 2 ^ -10, 2 ^ -22, 2e-38

-- ---------------------------------------------------------------- preparing

-- The norms of rows, float64: their squares neither overflow nor vanish there.
local function norms_of(x)
  local norms = nyx.empty(#x, { dtype = "float64" })
  for first = 1, #x, CHUNK do
    local count = math.min(CHUNK, #x - first + 1)
    norms:narrow(1, first, count):copy_(x:narrow(1, first, count):double():square():sum(2):sqrt())
  end
  return norms
end

-- Refuses rows that are not finite or too large; `what` is plural.
local function check_norms(where, what, norms, most)
  if #norms == 0 then return 0 end
  local largest = norms:amax():item()
  if largest <= most then return largest end
  local bad = norms:le(most):logical_not():nonzero()[1][1]:item()
  check.fail("%s: row %d of the %s %s; expected finite numbers and a norm of at most %.0e", where,
    bad, what, norms[bad]:isfinite():item() and ("has the norm %.3g"):format(norms[bad]:item())
    or "holds nan or infinity", most)
end

-- x (float32 rows) in bytes: them, their scales, and bounds of what is left out.
local function quantize(x, norms)
  local scale = (x:abs():amax(2) / 127):clamp(SMALL)
  local column = scale:unsqueeze(2)
  local bytes = (x / column):round():clamp(-127, 127)
  local left = (x - bytes * column):double():square():sum(2):sqrt()
  return bytes:to "int8", scale, (left * WIDER + norms * ULPS + TINY):float()
end

-- What rows are multiplied by for cosines, so that zeros have the score 0, and the norms of
-- what comes of them.
local function inverse(norms)
  local divisor = norms:clamp(SMALL)
  return (1 / divisor):float(), norms / divisor
end

function Prefilter:prepare()
  local rows, n, d = self.rows, self.rows:size(1), self.rows:size(2)
  local norms = norms_of(rows)
  check_norms("prefilter", "matrix", norms, LARGE)
  self.bytes = nyx.empty(n, d, { dtype = "int8" })
  self.scale, self.left, self.norm = nyx.empty(n), nyx.empty(n), nyx.empty(n)
  if self.metric == "cosine" then
    self.inverse, norms = inverse(norms)
  else
    norms, self.order = norms:sort(1, true)
  end
  for first = 1, n, CHUNK do
    local count = math.min(CHUNK, n - first + 1)
    local function part(x) return x:narrow(1, first, count) end
    local norm = part(norms)
    local x = self.order and rows:index_select(part(self.order), 1)
      or part(rows) * part(self.inverse):unsqueeze(2)
    local bytes, scale, left = quantize(x, norm)
    part(self.bytes):copy_(bytes)
    part(self.scale):copy_(scale)
    part(self.left):copy_(left)
    part(self.norm):copy_(norm * WIDER + TINY)
  end
end

local fields = { "metric", "rows", "bytes", "scale", "left", "norm", "order", "inverse" }

-- What state_dict gave, or a file holds.
function Prefilter:restore(state)
  for _, name in ipairs(fields) do self[name] = state[name] end
  local rows = state.rows
  local good = (state.metric == "dot" or state.metric == "cosine") and check.is_tensor(rows)
    and rows.ndim == 2
  local n = good and rows:size(1)
  local function is(name, dtype, ...)
    local x = state[name]
    good = good and check.is_tensor(x) and x.dtype == dtype
      and table.concat(x.shape, "x") == table.concat({ ... }, "x")
  end
  is("rows", "float32", n, good and rows:size(2))
  is("bytes", "int8", n, good and rows:size(2))
  for _, name in ipairs { "scale", "left", "norm" } do is(name, "float32", n) end
  if state.metric == "cosine" then is("inverse", "float32", n) else is("order", "int64", n) end
  if not good then
    check.fail("prefilter: the table is not what p:state_dict() gives; expected metric, rows, "
      .. "bytes, scale, left, norm, and order or inverse")
  end
end

function Prefilter:init(rows, metric)
  if type(rows) == "table" then
    self:restore(rows)
  else
    self.rows, self.metric = rows, metric
    nyx.no_grad(nyx.scope, function()
      self:prepare()
      nyx.keep(self)
    end)
  end
  self.last = { queries = 0, by_norm = 0, by_bytes = 0, scored = 0 }
end

-- ---------------------------------------------------------------- searching

-- One search of a group of queries (float32, one a row); `collect`: keep all that reached the
-- bound when it was met.
local Search = {}
Search.__index = Search

local function search_of(p, queries, norms, k, collect)
  local q, norm = queries, norms
  if p.metric == "cosine" then
    local factor
    factor, norm = inverse(norms)
    q = queries * factor:unsqueeze(2)
  end
  local bytes, scale, left = quantize(q, norm)
  local count = #queries
  norm = (norm * WIDER + TINY):float()
  local steps = (norm / scale):amax():item() -- the longest query in steps of its scale
  return setmetatable({ p = p, q = q, bytes = bytes, scale = scale, left = left, norm = norm, k = k,
    steps = steps, extra = p.left * steps, excess = norm - scale * steps, collect = collect and {},
    least = nyx.full({ count }, -math.huge), ids = nyx.arange(1, count + 1, { dtype = "int64" }),
    values = nyx.full({ count, k }, -math.huge), indices = nyx.ones(count, k, { dtype = "int64" }),
    found = false, plain_left = 0, plain_next = 1,
    by_norm = 0, scored = 0 }, Search)
end

-- The largest norm of bytes times scale among the rows from each BLOCK on.
local function reaches_of(p)
  local reach, n, most = {}, #p.norm, 0
  for first = math.floor((n - 1) / BLOCK) * BLOCK + 1, 1, -BLOCK do
    local count = math.min(BLOCK, n - first + 1)
    most = math.max(most, (p.norm:narrow(1, first, count) + p.left:narrow(1, first, count)):amax()
      :item())
    reach[(first - 1) / BLOCK + 1] = most
  end
  return reach
end

-- What may be missing in a score for a row of at most this norm, besides what is left out of
-- the row itself: a number for each query.
function Search:room(reach)
  return self.left * reach + self.norm * (reach * rounding(self.p.rows:size(2)))
    + self.scale * (self.steps * reach * ULPS) + TINY
end

-- Where sorted rows come from.
function Search:origin(positions)
  return self.p.order and self.p.order:index_select(positions, 1) or positions
end

-- Scores of pairs of a query and a row (positions of each), a number for each.
function Search:score(query, row)
  local p, scores = self.p, {}
  for first = 1, #query, CHUNK do
    local count = math.min(CHUNK, #query - first + 1)
    local at = row:narrow(1, first, count)
    local x = p.rows:index_select(at, 1)
    local s = (x * self.q:index_select(query:narrow(1, first, count), 1)):sum(2)
    scores[#scores + 1] = p.inverse and s * p.inverse:index_select(at, 1) or s
  end
  self.scored = self.scored + #query
  return #scores == 1 and scores[1] or nyx.cat(scores, 1)
end

-- Takes scored pairs into the best k of each query; of equal scores the first row comes first.
function Search:merge(query, row, scores)
  local count, n = #self.q, self.p.rows:size(1)
  if self.found then
    local mine = nyx.arange(1, count + 1, { dtype = "int64" }):unsqueeze(2):expand(count, self.k)
    query = nyx.cat({ mine:reshape(-1), query }, 1)
    row = nyx.cat({ self.indices:reshape(-1), row }, 1)
    scores = nyx.cat({ self.values:reshape(-1), scores }, 1)
  end
  local _, order = (query * (n + 1) + row):sort(1)
  query, row = query:index_select(order, 1), row:index_select(order, 1)
  scores = scores:index_select(order, 1)
  local each = query:bincount(count)
  local place = nyx.arange(1, #query + 1, { dtype = "int64" })
    - (each:cumsum(1) - each):index_select(query, 1)
  local most = math.max(self.k, each:amax():item())
  local padded = nyx.full({ count, most }, -math.huge):index_put(scores, query, place)
  local rows = nyx.ones(count, most, { dtype = "int64" }):index_put(row, query, place)
  local best
  self.values, best = padded:topk(self.k, 2)
  self.indices = rows:gather(best, 2)
  self.least = self.values:select(2, self.k)
  self.found = true
end

-- Scores all rows of a block, as the plain product does: where bounds say little.
function Search:plain(first, count)
  local p = self.p
  local row = self:origin(nyx.arange(first, first + count, { dtype = "int64" })):sort(1)
  local scores = self.q:matmul(p.rows:index_select(row, 1):t())
  if p.inverse then scores = scores * p.inverse:index_select(row, 1) end
  self.scored = self.scored + #self.q * count
  local values, at = scores:topk(math.min(self.k, count), 2)
  local query = nyx.arange(1, #self.q + 1, { dtype = "int64" }):unsqueeze(2):expand_as(at)
  self:merge(query:reshape(-1), row:index_select(at:reshape(-1), 1), values:reshape(-1))
end

-- The first rows: the best by their bounds say what the others have to reach.
function Search:begin(count)
  local p = self.p
  local dots = self.bytes:int_mm(p.bytes:narrow(1, 1, count):t())
  local _, at = (dots * p.scale:narrow(1, 1, count)):topk(self.k, 2)
  local query = nyx.arange(1, #self.q + 1, { dtype = "int64" }):unsqueeze(2):expand_as(at)
  local scores = self:score(query:reshape(-1), self:origin(at:reshape(-1)))
  self.scored = 0 -- they come again
  self.least = scores:reshape(#self.q, self.k):amin(2)
end

-- Scores the pairs of a block whose bound reaches the best so far. The bytes are asked in
-- steps of the queries' scales, and as if all were as long as the longest, which is not less.
function Search:look(first, count, reach)
  local p, room = self.p, self:room(reach)
  local function part(x) return x:narrow(1, first, count) end
  local pairs, bound = self.bytes:int_mm_reaching(part(p.bytes), part(p.scale), part(self.extra),
    (self.least - room) / self.scale)
  if #pairs * 8 > count * #self.q and not self.collect then
    self.plain_left = self.plain_next -- the next ones will hardly be better
    self.plain_next = 2 * self.plain_next
    return self:plain(first, count)
  end
  local query, at = pairs:select(2, 1), pairs:select(2, 2) + (first - 1)
  local function of(x) return x:index_select(query, 1) end
  bound = bound * of(self.scale) + of(room) + p.left:index_select(at, 1) * of(self.excess)
  local good = bound:ge(of(self.least)):nonzero():select(2, 1)
  if #good == 0 then return end
  query, bound = query:index_select(good, 1), bound:index_select(good, 1)
  local row = self:origin(at:index_select(good, 1))
  if self.collect then
    table.insert(self.collect, { self.ids:index_select(query, 1), row, bound })
  end
  self:merge(query, row, self:score(query, row))
end

-- Goes on without the queries that rows of this norm cannot reach; false: none are left.
function Search:narrow(reach, rows_left)
  local open = (self.norm * (reach * (1 + rounding(self.p.rows:size(2)))) + TINY):ge(self.least)
  local count, total = open:sum():item(), #self.q
  if count == total then return true end
  if count > total / 2 then return true end -- not worth the copies
  self.by_norm = self.by_norm + (total - count) * rows_left
  self.closed = self.closed or {}
  local shut = open:logical_not():nonzero():select(2, 1)
  table.insert(self.closed, { self.ids:index_select(shut, 1), self.values:index_select(shut, 1),
    self.indices:index_select(shut, 1) })
  local which = open:nonzero():select(2, 1)
  for _, name in ipairs { "q", "bytes", "scale", "left", "norm", "least", "ids", "values",
    "indices", "excess" } do
    self[name] = self[name]:index_select(which, 1)
  end
  return count > 0
end

function Search:run()
  local p, n, first = self.p, self.p.rows:size(1), 1
  local size = math.ceil(self.k / BLOCK) * BLOCK
  self:begin(math.min(size, n))
  p.reaches = p.reaches or reaches_of(p)
  while first <= n do
    local reach = p.reaches[(first - 1) / BLOCK + 1]
    if first > 1 and p.order and not self:narrow(reach, n - first + 1) then break end
    local count = math.min(size, n - first + 1)
    if self.plain_left > 0 then
      self.plain_left = self.plain_left - 1
      self:plain(first, count)
    else
      self:look(first, count, reach)
    end
    first = first + count
    -- the more were looked at, the fewer reach what they have to
    size = math.max(size, math.min(first - 1, MOST, math.floor(PAIRS / #self.q / BLOCK) * BLOCK))
  end
  local ids, values, indices = { self.ids }, { self.values }, { self.indices }
  for _, part in ipairs(self.closed or {}) do
    table.insert(ids, part[1])
    table.insert(values, part[2])
    table.insert(indices, part[3])
  end
  local _, order = nyx.cat(ids, 1):sort(1)
  return nyx.cat(values, 1):index_select(order, 1), nyx.cat(indices, 1):index_select(order, 1)
end

-- ---------------------------------------------------------------- asking

-- Checks what to search for: queries as rows, and whether there was only one, a vector.
function Prefilter:arguments(where, queries, k)
  local d, n = self.rows:size(2), self.rows:size(1)
  check.tensor(where, "queries", queries)
  if queries.ndim < 1 or queries.ndim > 2 or queries:size(-1) ~= d or queries.dtype ~= "float32"
    or queries.device ~= "cpu" then
    check.fail("%s: 'queries' is %s (%s), expected float32 of shape (%d) or (count, %d)", where,
      check.describe(queries), queries.dtype, d, d)
  end
  if type(k) ~= "number" or k % 1 ~= 0 or k < 1 or k > n then
    check.fail("%s: 'k' is %s, expected an integer from 1 to %d, the number of rows", where,
      check.describe(k), n)
  end
  return queries.ndim == 1 and queries:unsqueeze(1) or queries, queries.ndim == 1
end

-- Runs a search for each group of queries; visit(search, values, indices, first).
function Prefilter:search(where, queries, k, collect, visit)
  local most = self.metric == "cosine" and LARGE
    or math.min(LARGE, 1e37 / math.max(1e-7, self.norm:amax():item()))
  local norms = norms_of(queries)
  check_norms(where, "queries", norms, most)
  local last = { queries = #queries, by_norm = 0, scored = 0 }
  for first = 1, #queries, GROUP do
    local count = math.min(GROUP, #queries - first + 1)
    local search = search_of(self, queries:narrow(1, first, count),
      norms:narrow(1, first, count), k, collect)
    visit(search, search:run())
    last.by_norm, last.scored = last.by_norm + search.by_norm, last.scored + search.scored
  end
  last.by_bytes = #queries * self.rows:size(1) - last.by_norm - last.scored
  self.last = last
end

--- The k largest scores of each query and the rows that have them, in order.
---@param queries nyx.Tensor (d) or (count, d)
---@param k integer
---@return nyx.Tensor values (k) or (count, k)
---@return nyx.Tensor indices int64
function Prefilter:topk(queries, k)
  local x, single = self:arguments("topk", queries, k)
  return nyx.no_grad(nyx.scope, function()
    local values, indices = { nyx.empty(0, k) }, { nyx.empty(0, k, { dtype = "int64" }) }
    self:search("topk", x, k, false, function(_, best, rows)
      table.insert(values, best)
      table.insert(indices, rows)
    end)
    values, indices = nyx.cat(values, 1), nyx.cat(indices, 1)
    if single then return values[1], indices[1] end
    return values, indices
  end)
end

--- The rows whose bound reaches the k-th best score of each query, in order: those that the
--- bytes could not tell from the best.
---@param queries nyx.Tensor (d) or (count, d)
---@param k integer
---@return nyx.Tensor|nyx.Tensor[] rows int64; for several queries one tensor each
function Prefilter:candidates(queries, k)
  local x, single = self:arguments("candidates", queries, k)
  local list = {}
  nyx.no_grad(nyx.scope, function()
    self:search("candidates", x, k, true, function(search, values)
      local base, least = #list, values:select(2, k)
      local parts = { {}, {}, {} }
      for _, part in ipairs(search.collect) do
        for i = 1, 3 do table.insert(parts[i], part[i]) end
      end
      for i = 1, 3 do parts[i] = nyx.cat(parts[i], 1) end
      for i = 1, #values do
        local mine = parts[1]:eq(i):logical_and(parts[3]:ge(least[i]))
        list[base + i] = nyx.keep((parts[2]:masked_select(mine):sort(1)))
      end
    end)
  end)
  if single then return list[1] end
  return list
end

--- What it holds, and what the last search left out: {rows, columns, metric, bytes, last =
--- {queries, by_norm, by_bytes, scored}}, pairs of a query and a row.
---@return table
function Prefilter:stats()
  local bytes = 0
  for _, name in ipairs(fields) do
    local x = self[name]
    if name ~= "rows" and check.is_tensor(x) then
      bytes = bytes + x:numel() * (x.dtype == "int8" and 1 or x.dtype == "int64" and 8 or 4)
    end
  end
  local last = {}
  for name, value in pairs(self.last) do last[name] = value end
  return { rows = self.rows:size(1), columns = self.rows:size(2), metric = self.metric,
    bytes = bytes, last = last }
end

--- Plain fields for nyx.save; nyx.prefilter(state) is the same again.
---@return table
function Prefilter:state_dict()
  local state = {}
  for _, name in ipairs(fields) do state[name] = self[name] end
  return state
end

function Prefilter:__tostring()
  return ("nyx.Prefilter of %d rows of %d, %s"):format(self.rows:size(1), self.rows:size(2),
    self.metric)
end

--- Prepares the rows of a matrix for exact searches by product.
---@param rows nyx.Tensor|table float32 (n, d), kept and not to be changed; or a state_dict
---@param options? {metric?: "dot"|"cosine"}
---@return table
local function prefilter(rows, options)
  local metric = "dot"
  if options ~= nil then
    for name in pairs(check.type("prefilter", "options", options, "table")) do
      if name ~= "metric" then
        check.fail("prefilter: unknown option '%s'; known: metric", tostring(name))
      end
    end
    metric = options.metric or metric
  end
  if metric ~= "dot" and metric ~= "cosine" then
    check.fail("prefilter: 'metric' is %s, expected \"dot\" or \"cosine\"", check.describe(metric))
  end
  if type(rows) ~= "table" then
    check.tensor("prefilter", "rows", rows)
    if rows.ndim ~= 2 or rows.dtype ~= "float32" or rows.device ~= "cpu" or rows:numel() == 0 then
      check.fail("prefilter: 'rows' is %s (%s), expected float32 of shape (rows, columns), not "
        .. "empty, on the cpu", check.describe(rows), rows.dtype)
    end
    rows = rows:detach()
  end
  return Prefilter(rows, metric)
end

return { prefilter = prefilter }
