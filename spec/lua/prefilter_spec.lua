-- nyx.prefilter gives what the plain product gives: on rows made so that a bound that is too
-- tight loses one, and on all that is large, tiny, equal or nothing.
local nyx = require "nyx"

local function message(fn, ...)
  local ok, text = pcall(fn, ...)
  assert.is_false(ok)
  return text
end

local function inverse(x)
  return (1 / x:double():square():sum(2):sqrt():clamp(1e-30)):float()
end

local function plain(rows, x, metric)
  local scores = x:matmul(rows:t())
  if metric == "cosine" then scores = scores * inverse(rows) * inverse(x):unsqueeze(2) end
  return scores
end

-- How far sums of float32 may be apart.
local function apart(rows, x, metric)
  if metric == "cosine" then return rows:size(2) * 2 ^ -22 end
  return (rows:double():norm(2, 2):amax() * x:double():norm(2, 2):amax()):item() * rows:size(2)
    * 2 ^ -23
end

-- The k best of both ways: the same values but for rounding, at rows that have them; and the
-- candidates are all that may be among them.
local function agree(rows, x, k, metric)
  local p = nyx.prefilter(rows, { metric = metric })
  local values, indices = p:topk(x, k)
  local scores = plain(rows, x, metric)
  local best = scores:topk(k, 2)
  local most = apart(rows, x, metric)
  assert.same({ #x, k }, values.shape)
  assert.equal("int64", indices.dtype)
  assert.is_true((values - best):abs():amax():item() <= most)
  assert.is_true((scores:gather(indices, 2) - values):abs():amax():item() <= most)
  local last = p:stats().last
  assert.equal(#x * #rows, last.by_norm + last.by_bytes + last.scored)
  for i, list in ipairs(p:candidates(x, k)) do
    local is = nyx.zeros(#rows, { dtype = "bool" })
    is[list] = true
    local among = scores[i]:gt(best[i][k]:item() + most)
    assert.is_true(is:logical_or(among:logical_not()):all():item())
    assert.is_true(is:index_select(indices[i], 1):all():item())
    assert.is_true(#list >= k)
  end
  -- of different rows no two
  for i = 1, math.min(#x, 3) do
    local sorted = indices[i]:sort(1)
    if k > 1 then assert.is_true((sorted:narrow(1, 2, k - 1) - sorted:narrow(1, 1, k - 1)):gt(0)
      :all():item()) end
  end
  return p, values, indices
end

describe("a prefilter", function()
  before_each(function() nyx.manual_seed(5) end)

  for _, metric in ipairs { "dot", "cosine" } do
    it("finds the best of random rows by " .. metric, function()
      for _, size in ipairs { { 3, 1 }, { 100, 7 }, { 5000, 64 }, { 13000, 33 }, { 70000, 16 } } do
        local rows = nyx.randn(size[1], size[2])
        for _, count in ipairs { 1, 3, 17 } do
          agree(rows, nyx.randn(count, size[2]), math.min(3, size[1]), metric)
        end
        agree(rows, nyx.randn(2, size[2]), size[1] < 200 and size[1] or 150, metric)
      end
    end)

    it("finds them whatever the norms by " .. metric, function()
      local rows = nyx.randn(20000, 24) * nyx.randn(20000, 1):exp()
      agree(rows, nyx.randn(5, 24), 10, metric)
      agree(rows, nyx.randn(5, 24) * nyx.tensor { { 1e-3 }, { 1 }, { 1e6 }, { 0 }, { 1e-20 } }, 10,
        metric)
    end)

    it("takes zeros, tiny and huge rows by " .. metric, function()
      local rows = nyx.randn(5000, 16)
      rows:narrow(1, 1, 1000):fill_(0)
      rows:narrow(1, 1001, 500):mul_(1e-38)
      rows:narrow(1, 1501, 500):mul_(1e-44)
      agree(rows, nyx.randn(4, 16), 20, metric)
      agree(rows, -rows:narrow(1, 1, 4), 20, metric)              -- zeros
      agree(rows:narrow(1, 1, 2000):contiguous(), nyx.randn(4, 16), 20, metric)
      agree(rows:narrow(1, 1001, 1000):contiguous(), nyx.randn(4, 16), 990, metric)
      rows:narrow(1, 2001, 500):mul_(1e20)
      agree(rows, nyx.randn(4, 16), 20, metric)
    end)

    it("loses no row that bytes round away by " .. metric, function()
      -- one large entry makes the steps coarse; what decides lies below half of one
      local n, d = 6000, 32
      local rows, x = nyx.zeros(n, d), nyx.ones(2, d)
      rows[{ {}, 1 }] = 127
      rows[{ {}, { 2, -1 } }] = nyx.rand(n, d - 1) * 0.98 - 0.49
      x[{ {}, 1 }] = 0
      local _, _, indices = agree(rows, x, 5, metric)
      local expected = rows:narrow(2, 2, d - 1):sum(2)
      if metric == "dot" then assert.equal(expected:argmax():item(), indices[1][1]:item()) end
      -- the same of the query
      rows, x = nyx.randn(n, d), nyx.zeros(1, d)
      rows[{ {}, 1 }] = 0
      x[{ {}, 1 }] = 127
      x[{ {}, { 2, -1 } }] = 0.49
      agree(rows, x, 5, metric)
    end)
  end

  it("gives equal scores in the order of rows", function()
    local rows = nyx.randint(-2, 3, { 9000, 4 }):float()
    local x = nyx.tensor { { 1, 0, 2, 0 }, { 0, 0, 0, 0 }, { -1, 1, 0, 1 } }
    local p = nyx.prefilter(rows)
    local values, indices = p:topk(x, 50)
    local best, at = x:matmul(rows:t()):topk(50, 2)
    assert.same(best:totable(), values:totable())
    assert.same(at:totable(), indices:totable())
  end)

  it("leaves out most rows", function()
    local n = 50000
    local rows = nyx.randn(n, 64)
    local last = agree(rows, nyx.randn(8, 64), 10):stats().last
    assert.is_true(last.scored < 8 * n / 100)
    rows:mul_((nyx.randn(n, 1) * 1.5):exp())
    last = agree(rows, nyx.randn(8, 64), 10):stats().last
    assert.is_true(last.by_norm > 8 * n / 2, "by norm: " .. last.by_norm)
  end)

  it("does not depend on the number of threads, nor on other queries", function()
    local rows, x = nyx.randn(30000, 32), nyx.randn(300, 32)
    local p, threads = nyx.prefilter(rows), nyx.get_num_threads()
    local values, indices = p:topk(x, 7)
    nyx.set_num_threads(1)
    local alone, at = p:topk(x, 7)
    nyx.set_num_threads(threads)
    assert.same(values:totable(), alone:totable())
    assert.same(indices:totable(), at:totable())
    local one, first = p:topk(x[290], 7)
    assert.same({ 7 }, one.shape)
    assert.same(indices[290]:totable(), first:totable())
    assert.is_true((one - values[290]):abs():amax():item() <= apart(rows, x))
    assert.same({ 0, 7 }, p:topk(nyx.empty(0, 32), 7).shape)
  end)

  it("is saved and loaded", function()
    for _, metric in ipairs { "dot", "cosine" } do
      local p = nyx.prefilter(nyx.randn(500, 8), { metric = metric })
      local path = os.tmpname()
      assert(nyx.save(path, p:state_dict()))
      local again = nyx.prefilter(assert(nyx.load(path)))
      os.remove(path)
      local x = nyx.randn(3, 8)
      local values, indices = p:topk(x, 4)
      local same, at = again:topk(x, 4)
      assert.same(values:totable(), same:totable())
      assert.same(indices:totable(), at:totable())
      assert.equal(tostring(p), tostring(again))
      local state = p:state_dict()
      state.scale = nyx.ones(3)
      assert.is_truthy(message(nyx.prefilter, state):find("not what p:state_dict() gives", 1, true))
    end
    assert.is_truthy(message(nyx.prefilter, {}):find("not what p:state_dict() gives", 1, true))
  end)

  it("rests on an op that says which products of bytes reach a limit", function()
    local function bytes(n, k)
      local x = nyx.randint(-128, 128, { n, k }):to "int8"
      x:narrow(1, 1, 1):fill_(-128)
      return x
    end
    for _, size in ipairs { { 1, 1, 1 }, { 1, 9000, 70 }, { 2, 4097, 33 }, { 3, 5000, 16 },
      { 47, 3000, 65 }, { 48, 3000, 64 }, { 300, 500, 130 }, { 5, 0, 3 }, { 5, 200, 0 } } do
      local q, n, k = size[1], size[2], size[3]
      local x, y = bytes(q, k), n > 0 and bytes(n, k) or nyx.empty(0, k, { dtype = "int8" })
      local scale = nyx.full({ n }, 2) ^ nyx.randint(0, 3, { n })
      local extra = nyx.randint(-900, 900, { n }):float()
      local limit = nyx.randint(-99, 9999, { q }):float()
      local pairs, left = x:int_mm_reaching(y, scale, extra, limit)
      local all = extra + scale * x:int_mm(y:t())
      local expected = all:ge(limit:unsqueeze(2)):nonzero()
      assert.same(expected.shape, pairs.shape)
      local function place(at) return at:select(2, 1) * (n + 1) + at:select(2, 2) end
      local key, order = place(pairs):sort(1)
      assert.is_true(key:eq(place(expected)):all():item())
      local mine = left:index_select(order, 1)
      assert.is_true(mine:eq(all:masked_select(all:ge(limit:unsqueeze(2)))):all():item())
      if k > 0 and n > 100 and n < 4000 then assert.is_true(#pairs > 0 and #pairs < q * n) end
    end
    local x, one = nyx.ones(2, 3):to "int8", nyx.ones(2)
    assert.is_truthy(message(x.int_mm_reaching, x, x, one, one, nyx.ones(3))
      :find("'limit' has shape (3), expected one number for each row of x", 1, true))
    assert.is_truthy(message(x.int_mm_reaching, x, x:float(), one, one, one)
      :find("'y' is float32, expected int8", 1, true))
    assert.is_truthy(message(x.int_mm_reaching, x, x:narrow(2, 1, 2), one, one, one)
      :find("rows as long as those of x", 1, true))
  end)

  it("says what it is", function()
    local p = nyx.prefilter(nyx.randn(500, 8))
    assert.equal("nyx.Prefilter of 500 rows of 8, dot", tostring(p))
    local stats = p:stats()
    assert.same({ 500, 8, "dot", 500 * (8 + 12 + 8) },
      { stats.rows, stats.columns, stats.metric, stats.bytes })
    assert.same({ queries = 0, by_norm = 0, by_bytes = 0, scored = 0 }, stats.last)
  end)

  it("refuses what it cannot search", function()
    local rows = nyx.randn(20, 4)
    local function has(text, fn, ...)
      local got = message(fn, ...)
      assert.is_truthy(got:find(text, 1, true), got)
      assert.is_truthy(got:find("prefilter_spec.lua:", 1, true), got)
    end
    local function with(value)
      local x = rows:clone()
      x[7][2] = value
      return x
    end
    local p = nyx.prefilter(rows)
    local function make(...) local x = nyx.prefilter(...) return x end
    local function search(...) local x = p:topk(...) return x end
    has("row 7 of the matrix holds nan or infinity", make, with(0 / 0))
    has("row 7 of the matrix holds nan or infinity", make, with(-math.huge))
    has("row 7 of the matrix has the norm 1e+32", make, with(1e32))
    has("row 7 of the queries holds nan or infinity", search, with(0 / 0), 1)
    has("row 7 of the queries has the norm 1e+38", search, with(1e38), 1)
    has("expected float32 of shape (rows, columns)", make, nyx.ones(3))
    has("expected float32 of shape (rows, columns)", make, nyx.ones(3, 3):double())
    has("not empty", make, nyx.ones(0, 3))
    has("'metric' is string 'l2', expected \"dot\" or \"cosine\"", make, rows, { metric = "l2" })
    has("unknown option 'k'", make, rows, { k = 3 })
    has("'queries' is a tensor of shape (3) (float32), expected float32 of shape (4) or (count, 4)",
      search, nyx.ones(3), 1)
    has("'k' is number 21, expected an integer from 1 to 20", search, nyx.ones(4), 21)
    has("'k' is number 0.5", search, nyx.ones(4), 0.5)
    has("'k' is nil", search, nyx.ones(4))
    has("tensor", search, 3, 3)
  end)

  it("keeps no tensors of a search, nor half a search", function()
    local p, x = nyx.prefilter(nyx.randn(9000, 8)), nyx.randn(3, 8)
    p:topk(x, 3)
    collectgarbage()
    collectgarbage()
    local before = nyx.memory().live
    for n = 0, 300, 13 do
      nyx.memory_fail_after(n)
      pcall(p.topk, p, x, 3)
      nyx.memory_fail_after(-1)
    end
    collectgarbage()
    collectgarbage()
    assert.equal(before, nyx.memory().live)
  end)
end)
