-- What moves elements by kernels of its own for some layouts: each against a longer way.
local nyx = require "nyx"

local various = { "float32", "float16", "int64", "uint8", "complex64", "complex128" }
local dtypes = { "float32", "float64", "float16", "int64", "uint8", "bool" }

local function same(want, got, what)
  assert.are.same(want.shape, got.shape, what)
  assert.are.equal(want.dtype, got.dtype, what)
  assert.is_true(want:eq(got):all():item(), what)
end

-- x as it is, turned, cut, and channels-last.
local function layouts(x)
  local last, views = x.ndim, { x }
  if last > 1 then
    views[#views + 1] = x:transpose(1, -1)
    views[#views + 1] = x:narrow(last, 1, math.max(1, x:size(last) - 1))
  end
  if last == 4 then views[#views + 1] = x:contiguous { memory_format = "channels_last" } end
  return views
end

local function backwards(x, dim)
  local n = x:size(dim)
  return x:index_select((n + 1) - nyx.arange(1, n + 1, { dtype = "int64" }), dim)
end

describe("flip", function()
  local shapes = { { 1 }, { 7 }, { 33, 65 }, { 3, 64, 70 }, { 2, 3, 17, 9 }, { 5, 1, 200 },
    { 1500, 3 }, { 9, 4099 } }
  for _, dtype in ipairs(dtypes) do
    it("turns every layout of " .. dtype, function()
      for _, shape in ipairs(shapes) do
        for i, x in ipairs(layouts(nyx.randint(0, 200, shape):to(dtype))) do
          local what = ("%s, layout %d"):format(table.concat(shape, "x"), i)
          for d = 1, #shape do
            local want = backwards(x:contiguous(), d)
            same(want, x:flip { d }, what)
            if d > 1 then same(backwards(want, 1), x:flip { 1, d }, what) end
          end
        end
      end
    end)
  end

  it("of a result too large for the caches", function()
    local x = nyx.arange(1, 5 * 2 ^ 20 + 4)
    local y = x:flip { 1 }
    assert.is_true((y + x):eq(y:select(1, 1) + 1):all():item())
  end)
end)

describe("pad", function()
  it("mirrors more than a thread's share", function()
    for _, shape in ipairs { { 1, 1, 90000 }, { 1, 1, 3000, 24 } } do
      local n, x = shape[3], nyx.arange(1, shape[3] * (shape[4] or 1) + 1):reshape(shape)
      local pads = shape[4] and { 0, 0, n - 1, n - 1 } or { n - 1, n - 1 }
      local at = nyx.arange(1, n + 1, { dtype = "int64" })
      local less = at:narrow(1, 1, n - 1)
      local mirrored = nyx.cat({ n + 1 - less, at, n - less }, 1)
      same(x:index_select(mirrored, 3), x:pad(pads, { mode = "reflect" }), table.concat(shape, "x"))
    end
  end)

  it("mirrors rows as positions say", function()
    for _, dtype in ipairs { "float32", "float64", "float16", "uint8" } do
      for _, n in ipairs { 4, 30, 200 } do
        local x = nyx.randint(0, 200, { 3, n }):to(dtype)
        local at = {}
        for i = -3 + 1, n + 2 do at[#at + 1] = i < 1 and 2 - i or i > n and 2 * n - i or i end
        local index = nyx.tensor(at, { dtype = "int64" })
        same(x:index_select(index, 2), x:pad({ 3, 2 }, "reflect"), dtype .. n)
        local turned = x:t():contiguous() -- rows of 3 elements go backwards as blocks
        same(turned:index_select(index, 1), turned:pad({ 0, 0, 3, 2 }, "reflect"), dtype .. n)
      end
    end
  end)
end)

describe("pad in other modes", function()
  local function clamp(i, n)
    return i < 1 and 1 or i > n and n or i
  end
  local modes = {
    replicate = clamp,
    circular = function(i, n) return i < 1 and i + n or i > n and i - n or i end,
  }

  -- Rows that begin in one thread's share and end in another's, borders short and long.
  it("reads what positions say", function()
    for _, dtype in ipairs(various) do
      for _, pads in ipairs { { 1, 2 }, { 11, 9 } } do
        local n, x = 37, nyx.randint(0, 200, { 3000, 37 }):to(dtype)
        for mode, from in pairs(modes) do
          local at = {}
          for i = 1 - pads[1], n + pads[2] do at[#at + 1] = from(i, n) end
          local index = nyx.tensor(at, { dtype = "int64" })
          local what = table.concat({ dtype, mode, pads[1] }, " ")
          same(x:index_select(index, 2), x:pad(pads, mode), what)
          local turned = x:t():contiguous() -- blocks
          same(turned:index_select(index, 1), turned:pad({ 0, 0, pads[1], pads[2] }, mode), what)
        end
        local full = function(count) return nyx.full({ 3000, count }, 7, { dtype = dtype }) end
        same(nyx.cat({ full(pads[1]), x, full(pads[2]) }, 2), x:pad(pads, "constant", 7), dtype)
      end
    end
  end)
end)

describe("stack and cat of single elements", function()
  it("put them side by side", function()
    for _, dtype in ipairs(various) do
      for count = 2, 9 do
        for _, n in ipairs { 1, 3, 8, 100, 5000 } do
          local parts, columns = {}, {}
          for i = 1, count do
            parts[i] = nyx.randn(n):to(dtype)
            columns[i] = parts[i]:unsqueeze(2)
          end
          local y, z = nyx.stack(parts, 2), nyx.cat(columns, 2)
          for i = 1, count do
            same(parts[i], y:select(2, i), dtype .. count)
            same(parts[i], z:select(2, i), dtype .. count)
          end
        end
      end
    end
  end)

  it("past the caches", function()
    local x, y = nyx.rand(2 ^ 20), nyx.rand(2 ^ 20)
    local z = nyx.stack({ x, y }, 2)
    same(x, z:select(2, 1))
    same(y, z:select(2, 2))
    local c = nyx.complex(x, y)
    same(x, c:real())
    same(y, c:imag())
    same(-y, c:conj():imag())
    same(c * c, c:pow(2))
  end)

  it("of other layouts and dtypes", function()
    local x = nyx.rand(6, 5)
    local y = nyx.stack({ x:t(), x:t() + 1 }, 3)
    same(x:t(), y:select(3, 1))
    local mixed = nyx.stack({ x, x:double() }, 3)
    same(x:double(), mixed:select(3, 1))
  end)
end)

describe("expanded columns", function()
  it("become rows of one element", function()
    for _, dtype in ipairs(dtypes) do
      for _, n in ipairs { 1, 5, 64, 600, 5000 } do
        local x = nyx.randint(0, 100, { 3, 7, 1 }):to(dtype):transpose(1, 2)
        local want = x:contiguous():index_select(nyx.ones({ n }, { dtype = "int64" }), 3)
        same(want, x:expand(7, 3, n):contiguous(), dtype .. n)
      end
    end
  end)
end)

describe("a few elements side by side", function()
  it("are moved whole, wherever they lie", function()
    for _, dtype in ipairs { "float32", "bfloat16", "int8", "int64", "bool" } do
      for _, count in ipairs { 2, 3, 4, 8 } do
        local all = nyx.arange(0, 9 * 70 * count):remainder(251):sub(125):to(dtype)
        for _, skipped in ipairs { 0, 1, 2 } do -- elements before the first: not aligned
          local x = all[{ { 1 + skipped, 4 * 70 * count + skipped } }]:view(4, 70, count)
          local want = {}
          for i, plane in ipairs(x:totable()) do
            for j, row in ipairs(plane) do
              want[j] = want[j] or {}
              want[j][i] = row
            end
          end
          local turned = x:transpose(1, 2)
          assert.same(want, turned:contiguous():totable())
          assert.same(want, turned:flip(1):contiguous():flip(1):totable())
          local target = nyx.zeros({ 4, 70, count }, { dtype = dtype })
          target:transpose(1, 2):copy_(turned:contiguous())
          assert.is_true(target:equal(x))
          assert.same(x[{ {}, { 3, 5 } }]:totable(), x[{ {}, { 3, 5 } }]:contiguous():totable())
        end
      end
    end
  end)

  it("are moved one by one where pairs of them are not even", function()
    for _, dtype in ipairs { "float32", "bfloat16", "int8" } do
      for _, count in ipairs { 2, 4 } do
        local x = nyx.arange(1, 9 * count + 1):to(dtype):view(9, count)
        local views = { -- of something larger: with gaps in a row, with rows of odd length
          function(t) return t:narrow(1, 1, 9):slice(2, 1, 2 * count, 2) end,
          function(t)
            return t:view(-1):narrow(1, 1, 9 * (count + 1)):view(9, count + 1):narrow(2, 1, count)
          end,
        }
        for _, view in ipairs(views) do
          local all = nyx.zeros({ 10, 2 * count + 2 }, { dtype = dtype })
          view(all):copy_(x)
          assert.same(x:totable(), view(all):totable())
          assert.is_true(view(all):contiguous():equal(x))
          assert.equal(x:to("float64"):sum():item(), all:to("float64"):sum():item())
        end
      end
    end
  end)

  it("in squares of complex numbers, past the caches too", function()
    for _, n in ipairs { 64, 130, 800 } do
      local x = nyx.randn({ n, n + 3 }, { dtype = "complex64" })
      local turned = x:t():contiguous()
      assert.is_true(turned:real():equal(x:real():contiguous():t()))
      assert.is_true(turned:imag():equal(x:imag():contiguous():t()))
    end
  end)
end)

describe("bin_counts of integers", function()
  local x = nyx.tensor({ -2, -1, 0, 1, 2, 3 }, { dtype = "int64" })
  local function counts(low, high)
    return x:bin_counts { bins = 3, min = low, max = high }:totable()
  end

  it("has an upper edge only where it is an integer", function()
    assert.are.same({ 1, 1, 2 }, counts(-1, 2))
    assert.are.same({ 1, 1, 1 }, counts(-1.5, 1.5))
    assert.are.same({ 1, 1, 1 }, counts(-1.25, 1.75))
    assert.are.same({ 0, 0, 1 }, counts(-5, -2))
  end)

  it("counts in parts what it counts at once", function()
    local labels = nyx.randint(1, 50, { 100000 }, { dtype = "int64" })
    local want = nyx.zeros({ labels:max():item() }, { dtype = "int64" })
    same(want:scatter_add(labels, nyx.ones_like(labels), 1), labels:bincount())
  end)
end)

describe("scatter_backward", function()
  it("gives nothing to what a later position overwrote", function()
    local index = nyx.randint(1, 5, { 5, 5, 5 }, { dtype = "int64" })
    local number = nyx.arange(1, 126, { dtype = "int64" }):reshape(5, 5, 5)
    for dim = 1, 3 do
      local zeros = nyx.zeros({ 6, 7, 5 }, { dtype = "int64" })
      local kept = zeros:scatter(index, number, dim):gather(index, dim):eq(number)
      for _, g in ipairs(layouts(nyx.randn(6, 7, 5))) do
        if g:size(1) == 6 and g:size(3) == 5 then
          same(g:gather(index, dim) * kept:float(), g:scatter_backward(index, dim), "dim " .. dim)
        end
      end
    end
  end)

  it("refuses positions outside", function()
    local index = nyx.tensor({ { 1, 4 } }, { dtype = "int64" })
    assert.has_error(function() return nyx.ones(2, 3):scatter_backward(index, 2) end)
  end)
end)

describe("adaptive_avg_pool2d", function()
  it("sums wide boxes as exactly as narrow ones", function()
    local x = nyx.randn(2, 3, 37, 41)
    for _, size in ipairs { 1, 2, { 1, 3 }, { 3, 1 }, 7 } do
      local want = x:double():adaptive_avg_pool2d(size)
      assert.is_true((x:adaptive_avg_pool2d(size):double() - want):abs():amax():item() < 1e-6)
    end
    local means = x:double():mean({ 3, 4 }, true)
    assert.is_true((x:double():adaptive_avg_pool2d(1) - means):abs():amax():item() < 1e-14)
  end)
end)

describe("short rows", function()
  local widths = { 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 129, 260 }

  -- want, made contiguous from x, and copied between rows that stay as they are.
  local function check(want, x, what)
    same(want, x:contiguous(), what)
    local rows = x:size(1)
    local around = nyx.zeros({ rows + 2, x:size(2) }, { dtype = x.dtype })
    around:narrow(1, 2, rows):copy_(x)
    same(want, around:narrow(1, 2, rows), what)
    assert.is_false(around[1]:ne(0):any():item(), what)
    assert.is_false(around[rows + 2]:ne(0):any():item(), what)
  end

  for _, dtype in ipairs { "uint8", "bool", "float16", "float32", "int64", "complex64" } do
    it("are copied, repeated and filled in " .. dtype, function()
      for _, w in ipairs(widths) do
        for _, rows in ipairs { 1, 2, 3, 21, 150 } do
          local x = (nyx.arange(1, rows * (w + 3) + 1) % 97):reshape(rows, w + 3):to(dtype)
          local function columns(from, step)
            return x:index_select(nyx.arange(0, w, { dtype = "int64" }) * step + from, 2)
          end
          local what = ("%d rows of %d"):format(rows, w)
          check(columns(2, 1), x:narrow(2, 2, w), what)
          check(columns(3, 0), x:narrow(2, 3, 1):expand(rows, w), what)
          local ones = nyx.ones({ rows }, { dtype = "int64" })
          check(columns(2, 1):index_select(ones, 1), x[{ { 1, 1 }, { 2, w + 1 } }]:expand(rows, w),
            what)
        end
      end
    end)
  end

  it("take part in rows of elementwise ops", function()
    for _, w in ipairs(widths) do
      local x, y, z = nyx.randn(7, 1, w), nyx.randn(1, 23, 1), nyx.randn(7, 23, w + 1)
      local part = z:narrow(3, 2, w)
      local function full(t) return t:expand(7, 23, w):clone() end
      local want = full(x) * full(y) + part:clone()
      same(want, x * y + part, w)
      local out = nyx.zeros(7, 23, w + 1)
      nyx.add(x * y, part, { out = out:narrow(3, 1, w) })
      same(want, out:narrow(3, 1, w), w)
      assert.are.equal(0, out:select(3, w + 1):count_nonzero():item())
    end
  end)
end)

describe("index_select, embedding and gather", function()
  it("leaves out as it was where a position is wrong", function()
    local x, at = nyx.randn(4, 5), nyx.tensor({ 1, 2, 9 }, { dtype = "int64" })
    local out = nyx.full({ 3, 5 }, 7)
    local ok, message = pcall(nyx.index_select, x, 1, at, { out = out })
    assert.is_false(ok)
    assert.matches("9", message)
    assert.are.equal(7, out:min():item())
    assert.is_false(pcall(nyx.embedding, x, at, { out = out }))
    assert.are.equal(7, out:min():item())
    assert.is_false(pcall(nyx.gather, x, 1, nyx.tensor({ { 1, 4, 5, 1, 1 } }, { dtype = "int64" }),
      { out = out:narrow(1, 1, 1) }))
    assert.are.equal(7, out:min():item())
    assert.are.equal(7, out:max():item())
  end)
end)
