-- int8, uint8 and bool are computed in their own width: every pair of values against Lua's
-- integers, every length, layout and kind of operand. The kernels' own test is
-- spec/c/elementwise_narrow_test.c.
local nyx = require "nyx"

local range = { int8 = { -128, 127 }, uint8 = { 0, 255 }, bool = { 0, 1 } }

local unpack = table.unpack or unpack -- luacheck: ignore

local function bit(v) return v and 1 or 0 end

-- Bits of two bytes, by four: LuaJIT has no operators for them.
local function bitwise(op)
  local nibble = {}
  for x = 0, 15 do
    for y = 0, 15 do
      local out = 0
      for k = 0, 3 do
        out = out + op(math.floor(x / 2 ^ k) % 2, math.floor(y / 2 ^ k) % 2) * 2 ^ k
      end
      nibble[x * 16 + y] = out
    end
  end
  return function(x, y)
    x, y = x % 256, y % 256
    local low_x, low_y = x % 16, y % 16
    return nibble[x - low_x + (y - low_y) / 16] * 16 + nibble[low_x * 16 + low_y]
  end
end

-- What an op gives for two numbers, before it is cut to the width.
local binary = {
  add = function(x, y) return x + y end,
  sub = function(x, y) return x - y end,
  mul = function(x, y) return x * y end,
  maximum = math.max,
  minimum = math.min,
  bitwise_and = bitwise(math.min),
  bitwise_or = bitwise(math.max),
  bitwise_xor = bitwise(function(x, y) return bit(x ~= y) end),
  eq = function(x, y) return bit(x == y) end,
  ne = function(x, y) return bit(x ~= y) end,
  lt = function(x, y) return bit(x < y) end,
  le = function(x, y) return bit(x <= y) end,
  gt = function(x, y) return bit(x > y) end,
  ge = function(x, y) return bit(x >= y) end,
  logical_and = function(x, y) return bit(x ~= 0 and y ~= 0) end,
  logical_or = function(x, y) return bit(x ~= 0 or y ~= 0) end,
  logical_xor = function(x, y) return bit((x ~= 0) ~= (y ~= 0)) end,
}
local unary = {
  neg = function(x) return -x end,
  abs = math.abs,
  sign = function(x) return bit(x > 0) - bit(x < 0) end,
  square = function(x) return x * x end,
  relu = function(x) return math.max(x, 0) end,
  bitwise_not = function(x) return -1 - x end,
  logical_not = function(x) return bit(x == 0) end,
}
local masks = { eq = true, ne = true, lt = true, le = true, gt = true, ge = true,
                logical_and = true, logical_or = true, logical_xor = true, logical_not = true }
local no_bool = { sub = true, neg = true, bitwise_not = true }

-- The bytes of a result.
local function cut(op, dtype, v)
  if dtype == "bool" or masks[op] then return bit(v ~= 0) end
  return v % 256
end

local function bytes(list)
  local parts = {}
  for i = 1, #list, 4096 do
    parts[#parts + 1] = string.char(unpack(list, i, math.min(i + 4095, #list)))
  end
  return table.concat(parts)
end

-- Random values of a dtype, as numbers and as a tensor.
local state = 1
local function random(n, dtype)
  local least, most = range[dtype][1], range[dtype][2]
  local list = {}
  for i = 1, n do
    state = state * 48271 % 2147483647
    list[i] = least + math.floor(state / 256) % (most - least + 1)
  end
  return list, nyx.tensor(list, { dtype = "int32" }):cast(dtype)
end

local function all(dtype)
  local list = {}
  for v = range[dtype][1], range[dtype][2] do list[#list + 1] = v end
  return list, nyx.tensor(list, { dtype = "int32" }):cast(dtype)
end

local function expect(op, dtype, x, y)
  local list = {}
  for i = 1, #x do list[i] = cut(op, dtype, (binary[op] or unary[op])(x[i], y and y[i])) end
  return bytes(list)
end

local function each_dtype(test)
  for _, dtype in ipairs { "int8", "uint8", "bool" } do test(dtype) end
end

describe("narrow elementwise ops", function()
  it("give every pair what integers cut to the width give", function()
    each_dtype(function(dtype)
      local list, t = all(dtype)
      local n, x, y = #list, {}, {}
      for i = 0, n * n - 1 do x[i + 1], y[i + 1] = list[math.floor(i / n) + 1], list[i % n + 1] end
      local down, across = t:unsqueeze(2):expand(n, n), t:unsqueeze(1):expand(n, n)
      local dense, other = down:contiguous(), across:contiguous()
      for op in pairs(binary) do
        if not (dtype == "bool" and no_bool[op]) then
          local want, name = expect(op, dtype, x, y), op .. " of " .. dtype
          assert.is_true(nyx[op](dense, other):tobytes() == want, name)
          assert.is_true(nyx[op](t:unsqueeze(2), t):tobytes() == want, name .. ", broadcast")
          local expanded = nyx[op](dense, across):contiguous()
          assert.is_true(expanded:tobytes() == want, name .. ", expanded")
        end
      end
      for op in pairs(unary) do
        if not (dtype == "bool" and no_bool[op]) then
          assert.is_true(nyx[op](t):tobytes() == expect(op, dtype, list), op .. " of " .. dtype)
        end
      end
    end)
  end)

  it("take numbers, also those the dtype does not hold", function()
    for _, dtype in ipairs { "int8", "uint8" } do
      local list, t = all(dtype)
      for _, number in ipairs { 0, 1, -1, 100, 127, 128, -128, -129, 255, 256, 300, -300 } do
        local y = {}
        for i = 1, #list do y[i] = number end
        for op in pairs(binary) do
          local name = ("%s of %s and %d"):format(op, dtype, number)
          local scalar, want = nyx.tensor(number, { dtype = "int32" }), expect(op, dtype, list, y)
          local first = expect(op, dtype, y, list)
          assert.is_true(nyx[op](t, number):tobytes() == want, name)
          assert.is_true(nyx[op](t, scalar):tobytes() == want, name .. ", 0-d")
          assert.is_true(nyx[op](number, t):tobytes() == first, name .. " first")
        end
      end
    end
    local flags = nyx.tensor { true, false, true }
    assert.same({ 2, 1, 2 }, (flags + 1):totable())
    assert.equal("int64", (flags + 1).dtype)
    local int8 = nyx.tensor({ 5, 0, -3 }, { dtype = "int8" })
    assert.same({ 6, 0, -2 }, (int8 + flags):totable())
    assert.same({ 6, 1, -2 }, (int8 + nyx.tensor(true)):totable())
  end)

  it("keep what does not fit the width where the result is wider", function()
    local x = nyx.tensor({ 100, -128, 127 }, { dtype = "int8" })
    local wide = nyx.zeros(3, { dtype = "int32" })
    assert.same({ 200, -256, 254 }, nyx.add(x, x, { out = wide }):totable())
    local y = nyx.tensor({ 200, 255, 3 }, { dtype = "uint8" })
    assert.same({ 300, 127, 130 }, (x + y):totable())
    assert.same({ true, true, false }, x:lt(y):totable())
  end)

  it("clamp to limits within and beyond the range", function()
    local inf = math.huge
    for _, dtype in ipairs { "int8", "uint8" } do
      local list, t = all(dtype)
      for _, limits in ipairs {
        { -5, 5 }, { 0, 0 }, { -inf, 7 }, { 7, inf }, { -inf, inf }, { -300, 300 }, { 200, 300 },
        { -300, -200 }, { 256, inf }, { -inf, -129 }, { 9, 4 },
      } do
        local want = {}
        for i, v in ipairs(list) do
          want[i] = math.min(math.max(v, limits[1]), limits[2]) % 256
        end
        assert.is_true(t:clamp { min = limits[1], max = limits[2] }:tobytes() == bytes(want),
          ("%s to %g .. %g"):format(dtype, limits[1], limits[2]))
      end
    end
    assert.same({ true, true }, nyx.tensor { false, true }:clamp { min = 1 }:totable())
    assert.same({ false, false }, nyx.tensor { false, true }:clamp { max = 0 }:totable())
  end)

  it("choose by a mask, by their own dtype and by a wider one", function()
    each_dtype(function(dtype)
      for n = 0, 130, 13 do
        local x, tx = random(n, dtype)
        local y, ty = random(n, dtype)
        for _, kind in ipairs { "bool", "int8", "int32" } do
          local flags, mask = random(n, kind == "int32" and "int8" or kind)
          if kind == "int32" then mask = mask:cast "int32" * 256 end -- low bytes are all 0
          local want = {}
          for i = 1, n do want[i] = (flags[i] ~= 0 and x[i] or y[i]) % 256 end
          local got = nyx.where(mask, tx, ty):cast(dtype):contiguous()
          assert.is_true(got:tobytes() == bytes(want), dtype .. " by " .. kind)
        end
      end
    end)
    local x = nyx.tensor({ 1, 2, 3 }, { dtype = "int8" })
    local mask = nyx.tensor { true, false, true }
    assert.same({ 1, 7, 3 }, nyx.where(mask, x, 7):totable())
    assert.same({ 44, 2, 44 }, nyx.where(mask, 300, x):totable())
    assert.same({ 1, 2, 3 }, nyx.where(nyx.tensor(true), x, 7):totable())
  end)
end)

describe("narrow operands", function()
  it("may have any length and begin anywhere", function()
    each_dtype(function(dtype)
      for n = 0, 130 do
        local from = 1 + n % 7
        local x, tx = random(n + 8, dtype)
        local y, ty = random(n + 8, dtype)
        x, y = table.move(x, from + 1, from + n, 1, {}), table.move(y, 4, n + 3, 1, {})
        tx, ty = tx:narrow(1, from + 1, n), ty:narrow(1, 4, n)
        for _, op in ipairs { "add", "maximum", "lt", "logical_and" } do
          assert.is_true(nyx[op](tx, ty):tobytes() == expect(op, dtype, x, y), op .. " of " .. n)
        end
      end
    end)
  end)

  it("may be strided, turned and repeated", function()
    each_dtype(function(dtype)
      local rows, cols = 70, 90
      local _, tx = random(rows * cols * 2, dtype)
      local x = tx:reshape(cols, rows, 2):select(3, 1):t()
      local _, ty = random(rows, dtype)
      local y = ty:unsqueeze(2):expand(rows, cols)
      local a = x:contiguous():cast("int32"):flatten():totable()
      local b = y:contiguous():cast("int32"):flatten():totable()
      for _, op in ipairs { "add", "minimum", "ge", "logical_xor" } do
        local want = expect(op, dtype, a, b)
        assert.is_true(nyx[op](x, y):contiguous():tobytes() == want, op .. " of " .. dtype)
        local into = nyx.zeros(cols, rows, { dtype = masks[op] and "bool" or dtype }):t()
        nyx[op](x, y, { out = into })
        assert.is_true(into:contiguous():tobytes() == want, op .. " of " .. dtype .. ", turned out")
        local float = nyx[op](x, y, { out = nyx.zeros(rows, cols) })
        local sum = nyx[op](x:cast "int32", y:cast "int32"):sum()
        assert.equal(sum:item(), float:double():sum():item())
      end
    end)
  end)

  it("may be what is written", function()
    each_dtype(function(dtype)
      local x, tx = random(1000, dtype)
      local y, ty = random(1000, dtype)
      local want = expect("add", dtype, x, y)
      local a, b = tx:clone(), ty:clone()
      nyx.add(a, ty, { out = a })
      nyx.add(tx, b, { out = b })
      assert.is_true(a:tobytes() == want and b:tobytes() == want)
      assert.is_true(tx:clone():add_(ty):tobytes() == want)
      -- An input that overlaps the result elsewhere is read first.
      local line = tx:clone()
      line:narrow(1, 2, 999):copy_(nyx.maximum(line:narrow(1, 1, 999), line:narrow(1, 2, 999)))
      local shifted = tx:clone()
      local head, tail = shifted:narrow(1, 1, 999), shifted:narrow(1, 2, 999)
      nyx.maximum(head, tail, { out = tail })
      assert.is_true(line:tobytes() == shifted:tobytes())
    end)
  end)

  it("leave gradients as they are", function()
    local x = nyx.tensor { -1.0, 2.0, 3.0 }
    x.requires_grad = true
    local mask = x:detach():gt(0):logical_and(nyx.tensor { true, true, false })
    nyx.where(mask, x * 2, x):sum():backward()
    assert.same({ 1, 2, 1 }, x.grad:totable())
    assert.is_false(mask.requires_grad)
  end)
end)

describe("numbers copied", function()
  it("are converted as a tensor is", function()
    for _, dtype in ipairs {
      "int8", "uint8", "int32", "int64", "bool", "float32", "float64", "float16", "bfloat16",
    } do
      for _, number in ipairs { 0, 1, 3, 2.75, -1, -2.75, 300, 1e10, math.huge, -math.huge } do
        local float = number % 1 ~= 0
        local from = nyx.tensor({ number, number }, { dtype = float and "float64" or "int64" })
        local want = from:cast(dtype)
        local one = nyx.tensor(number, { dtype = float and "float64" or "int64" }):cast(dtype)
        assert.equal(want[1]:item(), one:item(), dtype)
        assert.is_true(want:tobytes() == one:expand(2):contiguous():tobytes())
      end
    end
    local x = nyx.zeros(7, 5, { dtype = "int8" })
    x:t():narrow(1, 2, 3):fill_(-3)
    assert.same({ 0, -3, -3, -3, 0 }, x[4]:totable())
    assert.equal(-3 * 3 * 7, x:sum():item())
  end)

  it("fill where a mask of any layout is true", function()
    each_dtype(function(dtype)
      local x, tx = random(600, dtype)
      local flags, mask = random(600, "bool")
      local value = dtype == "bool" and 1 or 77
      local want = {}
      for i = 1, 600 do want[i] = (flags[i] ~= 0 and value or x[i]) % 256 end
      assert.is_true(tx:masked_fill(mask, value):tobytes() == bytes(want))
      local turned = tx:reshape(20, 30):t():contiguous():t()
      local got = turned:masked_fill(mask:reshape(20, 30), value):contiguous()
      assert.is_true(got:tobytes() == bytes(want))
    end)
  end)
end)

describe("the extremes of narrow elements", function()
  it("are found at every place and length", function()
    for _, dtype in ipairs { "int8", "uint8" } do
      local lengths = { 1, 4095, 4096, 4097, 4224, 8191, 20000 }
      for n = 120, 300 do lengths[#lengths + 1] = n end
      for k, n in ipairs(lengths) do
        local least, most = range[dtype][1], range[dtype][2]
        local base = nyx.full({ n + 9 }, math.floor((least + most + 1) / 2), { dtype = dtype })
        local x = base:narrow(1, 1 + k % 9, n)
        local low, high = 1 + k * 7919 % n, 1 + k * 104729 % n
        x[low] = least
        assert.equal(least, x:amin():item(), dtype .. " " .. n)
        assert.equal(least, x:min():item())
        x[high] = most
        assert.equal(most, x:amax():item(), dtype .. " " .. n)
        assert.equal(most, x:max():item())
        local found, place = x:max(1)
        assert.equal(most, found:item())
        assert.equal(high, place:item())
      end
      local x = nyx.arange(0, 6000, { dtype = "int32" }):remainder(97):cast(dtype):reshape(3, 2000)
      assert.same({ 96, 96, 96 }, x:amax(2):totable())
      assert.same({ 0, 0, 0 }, x:amin(2):totable())
      assert.equal(96, x:t():contiguous():t():amax():item())
    end
  end)
end)
