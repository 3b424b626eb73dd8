-- x[key] and x[key] = value: what is refused, by the same rule for every kind of key.
local nyx = require "nyx"
local t = nyx.tensor

local function int(values, dtype) return t(values, { dtype = dtype or "int64" }) end

-- Calls fn, which must fail with all the texts, at this file's line.
local function fails(fn, ...)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  for _, text in ipairs { "index_spec.lua:", ... } do
    assert.is_truthy(tostring(message):find(text, 1, true), ("%q lacks %q"):format(message, text))
  end
end

describe("a mask", function()
  it("has the sizes of the dimensions that it covers", function()
    local x, m = nyx.ones(3), nyx.ones(3, 3)
    for _, mask in ipairs { t { true, true }, t { true, true, true, false }, t(true) } do
      fails(function() return x[mask] end, "x[...]: the mask has shape (", "expected (3)")
      fails(function() x[mask] = 0 end, "x[...]: the mask has shape (", "expected (3)")
    end
    local small = nyx.ones(2, 2, { dtype = "bool" })
    fails(function() return m[small] end, "mask has shape (2x2), expected (3x3)")
    fails(function() m[small] = 0 end, "mask has shape (2x2), expected (3x3)")
    local deep = nyx.ones(3, 3, 1, { dtype = "bool" })
    fails(function() return m[deep] end, "mask has shape (3x3x1), expected (3x3)")
    local two = t { true, true }
    fails(function() return m[{ two, 1 }] end, "mask has shape (2), expected (3)")
    fails(function() m[{ two, 1 }] = 0 end, "mask has shape (2), expected (3)")
    fails(function() return nyx.ones(3, 2)[{ 1, t { true, true, true } }] end,
      "mask has shape (3), expected (2)")
    assert.are.same({ 1, 1, 1 }, x:totable())
    assert.are.equal(9, m:sum():item())
  end)

  it("may cover the first dimensions, or one inside a key", function()
    local m = nyx.arange(6):reshape(3, 2)
    assert.are.same({ { 0, 1 }, { 4, 5 } }, m[t { true, false, true }]:totable())
    assert.are.same({ 2, 3 }, m[{ 2, t { true, true } }]:totable())
    m[t { false, true, false }] = 9
    m[{ t { true, false, false }, 1 }] = 7
    assert.are.same({ { 7, 1 }, { 9, 9 }, { 4, 5 } }, m:totable())
    assert.are.equal(5, t(5)[t(true)]:item())
  end)

  it("takes one number, or one for each element that it selects", function()
    local mask = t { true, true, false }
    for _, wrong in ipairs { t { 7, 8, 9 }, t { { 7 }, { 8 } } } do
      local x = nyx.zeros(3)
      fails(function() x[mask] = wrong end)
      assert.are.same({ 0, 0, 0 }, x:totable())
    end
    local x = nyx.zeros(3)
    fails(function() x[mask] = { 7, 8, 9 } end, "the mask selects 2 elements", "has 3", "as many")
    fails(function() x[t { true, true, true }] = { 7, 8 } end, "the mask selects 3", "has 2")
    x[mask] = { 7, 8 }
    assert.are.same({ 7, 8, 0 }, x:totable())
    x[mask] = t { { 5, 6 } }
    assert.are.same({ 5, 6, 0 }, x:totable())
    x[mask] = t { { 4 } }
    assert.are.same({ 4, 4, 0 }, x:totable())
    -- The op itself leaves the rest of source, as in PyTorch.
    assert.are.same({ 7, 8, 0 }, nyx.zeros(3):masked_scatter(mask, t { 7, 8, 9 }):totable())
  end)
end)

describe("a value that does not fit", function()
  local keys = { position = 1, range = { { 1, 2 } }, mask = t { true, false, false },
    positions = int { 1 }, among = false }

  -- x[key] = value in every way there is to write it; what x is then.
  local function each_way(dtype, value, check)
    for name, key in pairs(keys) do
      local x = nyx.zeros(3, { dtype = dtype })
      if name == "among" then
        x = nyx.zeros(2, 3, { dtype = dtype })
        check(name, function() x[{ 1, t { true, false, false } }] = value end, x)
      else
        check(name, function() x[key] = value end, x)
      end
    end
  end

  it("is refused for every kind of key", function()
    local function refused(dtype, value, ...)
      local texts = { "x[...]: the value", dtype, ("to(\"%s\")"):format(dtype), ... }
      each_way(dtype, value, function(_, fn, x)
        fails(fn, (table.unpack or unpack)(texts))
        assert.are.equal(0, x:long():sum():item())
      end)
    end
    refused("int64", 1.7, "number 1.7")
    refused("int64", 2 ^ 63)
    refused("int8", 300, "300")
    refused("uint8", -1, "-1")
    refused("int32", 2 ^ 31)
    for _, dtype in ipairs { "int8", "uint8", "int32", "int64" } do
      refused(dtype, 0 / 0)
      refused(dtype, math.huge)
      refused(dtype, t { 1.7 }, "float32 tensor of shape (1)")
      refused(dtype, t(1.0), "float32 tensor of shape ()")
    end
    refused("bool", int { 1 }, "int64 tensor of shape (1)")
    refused("int64", { 1.7 }, "at [1]", "number 1.7")
    refused("int8", { 300 }, "at [1]")
  end)

  it("is refused by fill_, copy_, full and tensor", function()
    local x = nyx.zeros(2, { dtype = "int8" })
    fails(function() x:fill_(300) end, "fill_: the value is number 300, which int8 does not hold")
    fails(function() x:fill_(1.5) end, "fill_: the value is number 1.5", ':to("int8")')
    fails(function() x:fill_(0 / 0) end, "fill_: ")
    fails(function() x:copy_(300) end, "copy_: ")
    fails(function() x:fill_(nyx.tensor(1.5)) end, "fill_: the value is a float32 tensor", "int8")
    fails(function() nyx.full({ 2 }, 300, { dtype = "int8" }) end, "full: ", "300", "int8")
    fails(function() t({ 1, 300 }, { dtype = "int8" }) end, "tensor: the value at [2] is number",
      "int8 does not hold", ':to("int8")')
    fails(function() t(1.5, { dtype = "int8" }) end, "tensor: the value is number 1.5")
    assert.are.same({ 0, 0 }, x:totable())
  end)

  it("is not one that fits", function()
    local function written(dtype, value, expected)
      each_way(dtype, value, function(_, fn, x)
        fn()
        assert.are.equal(expected, (x.ndim == 2 and x[1] or x)[1]:item())
      end)
    end
    written("int8", -128, -128)
    written("uint8", 255, 255)
    written("int64", 2.0, 2)
    written("int64", true, 1)
    written("int64", t(true), 1)
    written("int64", 2 ^ 53, 2 ^ 53)
    written("int8", int(5), 5)
    written("bool", true, true)
    written("bool", 2, true)
    written("float32", 1.5, 1.5)
    written("float32", int(3), 3)
    if math.maxinteger then written("int64", math.maxinteger, math.maxinteger) end
    written("int64", 16777217, 16777217)
  end)
end)

describe("nonzero", function()
  it("finds every position of thin and thick masks in any number of dimensions", function()
    nyx.manual_seed(5)
    for _, shape in ipairs { { 1003 }, { 7, 9 }, { 3, 5, 17 }, { 2, 1, 9, 4 }, { 3, 70001 } } do
      for _, p in ipairs { 0, 0.01, 0.5, 1 } do
        local mask = nyx.rand(shape):lt(p)
        local found, flat, stride = mask:nonzero(), 1, 1
        assert.are.same({ mask:sum():item(), #shape }, found.shape)
        for d = #shape, 1, -1 do
          flat, stride = flat + (found:select(2, d) - 1) * stride, stride * shape[d]
        end
        if found:size(1) > 0 then
          assert.is_true(mask:flatten():index_select(flat, 1):all():item())
          assert.is_true(flat:diff():gt(0):all():item())
        end
      end
    end
  end)
end)

describe("contiguous", function()
  it("repeats rows, columns and numbers of expanded tensors", function()
    local row, column = nyx.arange(700), nyx.arange(700):reshape(700, 1)
    for _, dtype in ipairs { "float32", "float64", "int8", "bfloat16" } do
      local r, c = row:remainder(100):to(dtype), column:remainder(100):to(dtype)
      local ones = nyx.ones(5, 700, { dtype = dtype })
      assert.is_true(r:expand(5, 700):contiguous():equal(ones * r))
      assert.is_true(c:expand(700, 5):contiguous():equal(ones:t() * c))
      local wide = nyx.ones(700, 900, { dtype = dtype })
      assert.is_true(c:expand(700, 900):contiguous():equal(wide * c))
      assert.is_true(r:expand(5, 700):float():equal((ones * r):float()))
      assert.is_true(r:reshape(1, 1, 700):expand(2, 3, 700):double():equal(
        (nyx.ones(2, 3, 700, { dtype = dtype }) * r):double()))
    end
  end)
end)
