-- Tensors as Lua sees them: making them, fields and methods, operators, arguments of ops,
-- positions and slices. What ops compute is tested in spec/op.
local nyx = require "nyx"

local function same(expected, tensor)
  assert.are.same(expected, tensor:totable())
end

describe("nyx.tensor", function()
  it("makes float32 of numbers, bool of booleans", function()
    local x = nyx.tensor({ { 1, 2, 3 }, { 4, 5, 6 } })
    assert.are.equal("float32", x.dtype)
    assert.are.same({ 2, 3 }, x.shape)
    same({ { 1, 2, 3 }, { 4, 5, 6 } }, x)
    assert.are.equal("bool", nyx.tensor({ true, false }).dtype)
    same({ true, false }, nyx.tensor({ true, false }))
    assert.are.equal("bool", nyx.tensor(true).dtype)
  end)

  it("makes 0-dimensional and empty tensors", function()
    local zero = nyx.tensor(7)
    assert.are.equal(0, zero.ndim)
    assert.are.same({}, zero.shape)
    assert.are.equal(7, zero:item())
    assert.are.same({ 0 }, nyx.tensor({}).shape)
    assert.are.same({ 2, 0 }, nyx.tensor({ {}, {} }).shape)
    same({ {}, {} }, nyx.tensor({ {}, {} }))
  end)

  it("takes every dtype", function()
    for _, dtype in ipairs { "float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32",
      "int64" } do
      local x = nyx.tensor({ 1, 2, 100 }, { dtype = dtype })
      assert.are.equal(dtype, x.dtype)
      same({ 1, 2, 100 }, x)
    end
    same({ true, false }, nyx.tensor({ 2, 0 }, { dtype = "bool" }))
    assert.are.equal("int32", nyx.tensor({ 1 }, { dtype = nyx.int32 }).dtype)
  end)

  it("keeps what float64 and int64 hold", function()
    assert.are.equal(0.1, nyx.tensor(0.1, { dtype = "float64" }):item())
    assert.are.equal(2 ^ 53 - 1, nyx.tensor({ 2 ^ 53 - 1 }, { dtype = "int64" }):item())
  end)

  it("copies a tensor without its history", function()
    local x = nyx.ones(3, { requires_grad = true })
    local y = nyx.tensor(x * 2)
    assert.is_false(y.requires_grad)
    assert.is_false(nyx.tensor(x):shares(x))
    assert.are.equal("float64", nyx.tensor(x, { dtype = "float64" }).dtype)
  end)

  it("takes numbers in tensors", function()
    same({ 3, 4 }, nyx.tensor({ nyx.tensor(3), 4 }))
  end)

  it("has requires_grad", function()
    assert.is_true(nyx.tensor({ 1 }, { requires_grad = true }).requires_grad)
  end)
end)

describe("bytes", function()
  it("go out and in again", function()
    local x = nyx.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = "int32" })
    local bytes = x:t():tobytes()
    assert.are.equal(16, #bytes)
    same({ { 1, 3 }, { 2, 4 } }, nyx.frombuffer(bytes, "int32", { 2, 2 }))
    same({ 3, 2, 4 }, nyx.frombuffer(bytes, "int32", nil, 4))
    same({ true, false, true }, nyx.frombuffer("\7\0\1", "bool"))
  end)
end)

describe("memory", function()
  it("has an address", function()
    assert.are.equal("userdata", type(nyx.ones(1):data_ptr()))
    local x = nyx.ones(2)
    assert.is_true(rawequal(x, x:touch()))
  end)

  if rawget(_G, "jit") then
    it("is open to LuaJIT's FFI", function()
      local x = nyx.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = "float64" })
      local p = x:ffi()
      assert.are.equal(3, p[2])
      p[2] = 30
      same({ { 1, 2 }, { 30, 4 } }, x)
      assert.are.equal(4, nyx.tensor({ 1, 4 }, { dtype = "int32" }):ffi()[1])
      assert.are.equal(3, x:t():ffi()[2] / 10)
    end)
  end
end)

describe("fields", function()
  local x = nyx.zeros(2, 3, { dtype = "float64" })

  it("describe the tensor", function()
    assert.are.same({ 2, 3 }, x.shape)
    assert.are.equal("float64", x.dtype)
    assert.are.equal("cpu", x.device)
    assert.are.equal(2, x.ndim)
    assert.is_false(x.requires_grad)
    assert.is_true(x.is_leaf)
    assert.is_nil(x.grad)
    assert.is_nil(x.grad_fn)
    assert.is_nil(x.no_such_thing)
  end)

  it("name the op that made it", function()
    local y = nyx.ones(2, { requires_grad = true })
    assert.are.equal("mul", (y * 2).grad_fn.name)
    assert.is_false((y * 2).is_leaf)
  end)

  it("can be assigned where it makes sense", function()
    local y = nyx.ones(2)
    y.requires_grad = true
    assert.is_true(y.requires_grad)
    y.grad = nyx.tensor({ 3, 4 })
    same({ 3, 4 }, y.grad)
    y.grad = nil
    assert.is_nil(y.grad)
  end)

  it("methods measure", function()
    assert.are.same({ 2, 3 }, x:size())
    assert.are.equal(3, x:size(2))
    assert.are.equal(3, x:size(-1))
    assert.are.same({ 3, 1 }, x:stride())
    assert.are.equal(1, x:stride(2))
    assert.are.equal(2, x:dim())
    assert.are.equal(6, x:numel())
    assert.are.equal(2, #x)
    assert.is_true(x:is_contiguous())
    assert.is_false(x:t():is_contiguous())
    assert.is_true(x:is_floating_point())
    assert.is_true(nyx.is_tensor(x))
    assert.is_false(nyx.is_tensor({}))
    assert.is_false(nyx.is_tensor(io.stdout))
    assert.is_false(nyx.is_tensor())
  end)
end)

describe("operators", function()
  local x, y = nyx.tensor({ 6, 8 }), nyx.tensor({ 4, 2 })

  it("compute", function()
    same({ 10, 10 }, x + y)
    same({ 2, 6 }, x - y)
    same({ 24, 16 }, x * y)
    same({ 1.5, 4 }, x / y)
    same({ -6, -8 }, -x)
    same({ 36, 64 }, x ^ 2)
    same({ 2, 0 }, x % y)
  end)

  it("take numbers on both sides", function()
    same({ 7, 9 }, x + 1)
    same({ 4, 2 }, 10 - x)
    same({ 3, 4 }, x / 2)
    same({ 12, 16 }, 2 * x)
    same({ 64, 256 }, 2 ^ x)
  end)

  it("keep integers with whole numbers, and give floats otherwise", function()
    local i = nyx.tensor({ 1, 2 }, { dtype = "int32" })
    assert.are.equal("int32", (i + 1).dtype)
    assert.are.equal("float32", (i + 0.5).dtype)
    assert.are.equal("float32", (i / 2).dtype)
    assert.are.equal("float64", (nyx.ones(2, { dtype = "float64" }) * 2).dtype)
  end)

  it("== asks whether two values are the same tensor", function()
    assert.is_true(x == x) -- luacheck: ignore
    assert.is_false(x == x:clone())
    assert.is_true(x == x:contiguous())
    same({ true, false }, x:eq(nyx.tensor({ 6, 9 })))
  end)

  it(".. joins a number in a tensor to text", function()
    assert.are.equal("loss 0.25", "loss " .. nyx.tensor(0.25))
    assert.are.equal("3!", nyx.tensor(3) .. "!")
  end)

  local bits = load and load("return function(a, b) return a & b, a | b, ~a, a // b end")
  if bits then
    it("work on bits and integers in Lua 5.4", function()
      local a = nyx.tensor({ 12, 10 }, { dtype = "int32" })
      local b = nyx.tensor({ 10, 3 }, { dtype = "int32" })
      local both, either, flipped, floor = bits()(a, b)
      same({ 8, 2 }, both)
      same({ 14, 11 }, either)
      same({ -13, -11 }, flipped)
      same({ 1, 3 }, floor)
      local p, q = nyx.tensor({ true, false }), nyx.tensor({ true, true })
      same({ true, false }, (bits()(p, q)))
    end)
  end
end)

describe("arguments of ops", function()
  local x = nyx.tensor({ { 1, 2, 3 }, { 4, 5, 6 } })

  it("come by position or by name", function()
    same({ 6, 15 }, x:sum(2))
    same({ 6, 15 }, x:sum(-1))
    same({ { 6 }, { 15 } }, x:sum(2, true))
    same({ { 6 }, { 15 } }, x:sum { dim = 2, keepdim = true })
    same({ { 6 }, { 15 } }, nyx.sum(x, 2, { keepdim = true }))
    assert.are.equal(21, x:sum({ 1, 2 }):item())
    assert.are.equal(21, x:sum(1, 2):item())
    assert.are.equal(21, x:sum {}:item())
  end)

  it("lists may be numbers or a table", function()
    assert.are.same({ 3, 2 }, x:reshape(3, 2).shape)
    assert.are.same({ 3, 2 }, x:reshape({ 3, -1 }).shape)
    assert.are.same({ 6 }, x:reshape(-1).shape)
    assert.are.same({ 3, 2 }, x:permute(2, 1).shape)
    assert.are.same({ 2, 2, 3 }, x:expand(2, 2, 3).shape)
    assert.are.same({}, nyx.zeros({}).shape)
  end)

  it("constructors take options after sizes", function()
    local y = nyx.zeros(2, 3, { dtype = "float64", requires_grad = true })
    assert.are.same({ 2, 3 }, y.shape)
    assert.are.equal("float64", y.dtype)
    assert.is_true(y.requires_grad)
    assert.are.equal("int64", nyx.ones({ 2 }, { dtype = "int64" }).dtype)
    assert.are.equal("cpu", nyx.ones({ 2 }, { device = "cpu" }).device)
    same({ 2, 2 }, nyx.full({ 2 }, 2))
  end)

  it("tensors come first, in order, but a dimension may stand between", function()
    local index = nyx.tensor({ { 3, 1 }, { 2, 2 } }, { dtype = "int64" })
    same({ { 3, 1 }, { 5, 5 } }, x:gather(index, 2))
    same({ { 3, 1 }, { 5, 5 } }, x:gather(2, index))
    same({ { 3, 1 }, { 5, 5 } }, nyx.gather(x, index, { dim = 2 }))
  end)

  it("lists of tensors are tables", function()
    assert.are.same({ 4, 3 }, nyx.cat({ x, x }).shape)
    assert.are.same({ 2, 6 }, nyx.cat({ x, x }, 2).shape)
    assert.are.same({ 2, 2, 3 }, nyx.stack({ x, x }).shape)
  end)

  it("lists of tensors may be long", function()
    local many = {}
    for i = 1, 150 do many[i] = nyx.full({ 1, 2 }, i) end
    local joined = nyx.cat(many)
    assert.are.same({ 150, 2 }, joined.shape)
    assert.are.equal(150, joined[150][1]:item())
    assert.are.same({ 1, 300 }, nyx.cat(many, 2).shape)
    assert.are.same({ 150, 1, 2 }, nyx.stack(many).shape)
    assert.are.same({ 1, 150, 2 }, nyx.stack(many, 2).shape)
  end)

  it("out names a tensor to write to", function()
    local out = nyx.zeros(2, 3)
    local result = nyx.add(x, x, { out = out })
    assert.is_true(rawequal(result, out))
    same({ { 2, 4, 6 }, { 8, 10, 12 } }, out)
  end)

  it("a trailing _ works in place", function()
    local y = x:clone()
    assert.is_true(rawequal(y, y:add_(1)))
    same({ { 2, 3, 4 }, { 5, 6, 7 } }, y)
    y:mul_(y)
    same({ { 4, 9, 16 }, { 25, 36, 49 } }, y)
  end)

  it("ops with several results give several values", function()
    local values, positions = x:max(2)
    same({ 3, 6 }, values)
    same({ 3, 3 }, positions)
    assert.are.equal(1, select("#", x:max()))
    assert.are.equal(6, x:max():item())
    assert.are.equal(6, x:argmax():item())
  end)
end)

describe("bfloat16", function()
  -- Bits of floats: many exponents, ties, what rounds up to infinity, nans of both signs whose
  -- digits are all in the lower half.
  local function floats()
    local words = { 0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff, 0x7f800000, 0xff800000,
      0x7f7fffff, 0xff7f8000, 0x00008000, 0x00018000, 0x80008001, 0, 0x80000000, 1, 0x3f808000,
      0x3f818000 }
    local state = 12345
    for i = #words + 1, 1000 do
      state = (state * 1103515245 + 12345) % 2147483648
      words[i] = state * 2 + i % 2
    end
    local bytes = {}
    for i, w in ipairs(words) do
      bytes[i] = string.char(w % 256, math.floor(w / 256) % 256, math.floor(w / 65536) % 256,
        math.floor(w / 16777216))
    end
    return nyx.frombuffer(table.concat(bytes), "float32"), words
  end

  it("is the upper half of a float, rounded to even", function()
    local x, words = floats()
    local bytes = x:to "bfloat16":tobytes()
    for i, w in ipairs(words) do
      local high, low = math.floor(w / 65536), w % 65536
      local is_nan = w % 0x80000000 > 0x7f800000
      if is_nan then
        high = high + (math.floor(high / 64) % 2 == 0 and 64 or 0)
      elseif low > 0x8000 or (low == 0x8000 and high % 2 == 1) then
        high = high + 1
      end
      assert.equal(high, bytes:byte(2 * i - 1) + 256 * bytes:byte(2 * i))
    end
  end)

  it("is the same of any number and stride of elements", function()
    local x = floats()
    local all = x:to "bfloat16"
    for n = 1, 70 do
      assert.equal(all[{ { 1, n } }]:tobytes(), x[{ { 1, n } }]:to "bfloat16":tobytes())
    end
    local apart = nyx.stack({ x, x }, 2)[{ {}, 1 }]
    assert.equal(all:tobytes(), apart:to "bfloat16":tobytes())
    local back = all:float()
    local halves = all:reshape(-1, 1):expand(1000, 2)[{ {}, 2 }]
    assert.equal(back:tobytes(), halves:float():tobytes())
    assert.equal(all:tobytes(), back:to "bfloat16":tobytes())
  end)
end)

describe("copy_, fill_, zero_", function()
  it("write everything", function()
    local x = nyx.zeros(2, 2)
    same({ { 1, 2 }, { 1, 2 } }, x:copy_(nyx.tensor({ 1, 2 }, { dtype = "int32" })))
    same({ { 1, 2 }, { 3, 4 } }, x:copy_({ { 1, 2 }, { 3, 4 } }))
    same({ { 5, 5 }, { 5, 5 } }, x:fill_(5))
    same({ { 0, 0 }, { 0, 0 } }, x:zero_())
    same({ true, true }, nyx.tensor({ false, false }):fill_(true))
  end)

  it("copies tensors of every dtype, converted as by to", function()
    local dtypes = { "float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64",
      "bool" }
    for _, from in ipairs(dtypes) do
      local y = nyx.tensor({ 0, 1.75, 3, 0.5 }):to(from)
      for _, to in ipairs(dtypes) do
        local x, column = nyx.zeros(4, { dtype = to }), nyx.zeros(4, 3, { dtype = to })
        same(y:to(to):totable(), x:copy_(y))
        assert.are.equal(to, x.dtype)
        column:t():copy_(y) -- broadcast, into a view
        same(x:totable(), column:select(2, 3))
      end
    end
    local x = nyx.zeros(2, { dtype = "int32" })
    same({ -1, 2 }, x:copy_(nyx.tensor({ -1.9, 2.9 }, { requires_grad = true })))
    assert.is_false(x.requires_grad)
    same({ true, false }, nyx.tensor({ false, true }):copy_(nyx.tensor({ 0.5, 0 })))
    assert.has_error(function() x:copy_(nyx.ones(3)) end)
    same({ -1, 2 }, x)
  end)

  it("write through views", function()
    local x = nyx.zeros(2, 3)
    x:select(2, 2):fill_(7)
    x:narrow(2, 3, 1):copy_({ { 1 }, { 2 } })
    same({ { 0, 7, 1 }, { 0, 7, 2 } }, x)
  end)
end)

describe("to", function()
  local x = nyx.tensor({ 1.5, -2.5 })

  it("converts", function()
    assert.are.equal("float64", x:to("float64").dtype)
    same({ 1, -2 }, x:to("int32"))
    assert.are.equal("int64", x:to(nyx.tensor(1, { dtype = "int64" })).dtype)
    assert.are.equal("float64", x:to("cpu", "float64").dtype)
    assert.are.equal("float64", x:to({ dtype = "float64", device = "cpu" }).dtype)
    assert.are.equal("float16", x:half().dtype)
    assert.are.equal("float64", x:double().dtype)
    assert.are.equal("int64", x:long().dtype)
    assert.are.equal("bool", x:bool().dtype)
    assert.are.equal("int64", x:type_as(x:long()).dtype)
  end)

  it("gives the tensor itself when there is nothing to do", function()
    assert.is_true(rawequal(x, x:to("float32")))
    assert.is_true(rawequal(x, x:to("cpu")))
  end)
end)

describe("indexing", function()
  local x
  before_each(function() x = nyx.tensor({ { 1, 2, 3 }, { 4, 5, 6 }, { 7, 8, 9 } }) end)

  it("a number selects along the first dimension", function()
    same({ 4, 5, 6 }, x[2])
    same({ 7, 8, 9 }, x[-1])
    assert.are.equal(6, x[2][3]:item())
    assert.are.equal(0, x[2][3].ndim)
  end)

  it("a table selects in each dimension", function()
    assert.are.equal(6, x[{ 2, 3 }]:item())
    same({ 2, 5, 8 }, x[{ {}, 2 }])
    same({ { 1, 2 }, { 4, 5 } }, x[{ { 1, 2 }, { 1, 2 } }])
    same({ { 1, 3 }, { 7, 9 } }, x[{ { 1, 3, 2 }, { 1, -1, 2 } }])
    same({ { 4, 5, 6 } }, x[{ { 2 } }])
    same({ { 8 }, }, x[{ { -1 }, { 2 } }])
    same(x:totable(), x[{}])
    assert.are.same({ 0, 3 }, x[{ { 1, 0 } }].shape)
    assert.are.same({ 0, 3 }, x[{ { 4, 3 } }].shape)
  end)

  it("gives views", function()
    x[1][2] = 20
    x[{ { 2, 3 }, 1 }]:zero_()
    same({ { 1, 20, 3 }, { 0, 5, 6 }, { 0, 8, 9 } }, x)
    assert.is_true(x[{}]:shares(x))
  end)

  it("a mask selects elements", function()
    same({ 6, 7, 8, 9 }, x[x:gt(5)])
    same({ { 1, 2, 3 }, { 7, 8, 9 } }, x[nyx.tensor({ true, false, true })])
    same({ { 1, 3 }, { 4, 6 }, { 7, 9 } }, x[{ {}, nyx.tensor({ true, false, true }) }])
  end)

  it("positions select", function()
    local i = nyx.tensor({ 3, 1 }, { dtype = "int64" })
    same({ { 7, 8, 9 }, { 1, 2, 3 } }, x[i])
    same({ { 3, 1 }, { 6, 4 }, { 9, 7 } }, x[{ {}, i }])
    same({ 9, 7 }, x[{ 3, i }])
    same({ 8, 1 }, x[{ i, nyx.tensor({ 2, 1 }, { dtype = "int64" }) }])
    same({ { 6, 4 }, { 9, 7 } }, x[{ { 2, 3 }, i }])
    assert.are.same({ 1, 2, 3 }, x[i:reshape(1, 2)].shape)
  end)

  it("assigns numbers, tensors and tables", function()
    x[1] = 0
    x[{ 2, 2 }] = 50
    x[3] = nyx.tensor({ 70, 80, 90 })
    same({ { 0, 0, 0 }, { 4, 50, 6 }, { 70, 80, 90 } }, x)
    x[{ {}, { 1, 2 } }] = { { 1, 2 }, { 3, 4 }, { 5, 6 } }
    same({ { 1, 2, 0 }, { 3, 4, 6 }, { 5, 6, 90 } }, x)
    x[{ {}, 3 }] = nyx.tensor(1)
    same({ { 1, 2, 1 }, { 3, 4, 1 }, { 5, 6, 1 } }, x)
    x[{ { 1, 3, 2 } }] = nyx.tensor({ 9, 9, 9 }, { dtype = "int32" })
    same({ { 9, 9, 9 }, { 3, 4, 1 }, { 9, 9, 9 } }, x)
  end)

  it("assigns from itself", function()
    x[{ { 1, 2 } }] = x[{ { 2, 3 } }]
    same({ { 4, 5, 6 }, { 7, 8, 9 }, { 7, 8, 9 } }, x)
  end)

  it("assigns where a mask is true", function()
    x[x:gt(6)] = 0
    same({ { 1, 2, 3 }, { 4, 5, 6 }, { 0, 0, 0 } }, x)
    x[x:lt(3)] = nyx.tensor({ 10, 20, 30, 40, 50 })
    same({ { 10, 20, 3 }, { 4, 5, 6 }, { 30, 40, 50 } }, x)
    x[nyx.tensor({ false, true, false })] = 1
    same({ { 10, 20, 3 }, { 1, 1, 1 }, { 30, 40, 50 } }, x)
    x[x:eq(1)] = nyx.tensor(2)
    same({ 2, 2, 2 }, x[2])
  end)

  it("assigns at positions", function()
    local i = nyx.tensor({ 3, 1 }, { dtype = "int64" })
    x[i] = nyx.tensor({ { 30, 30, 30 }, { 10, 10, 10 } })
    same({ { 10, 10, 10 }, { 4, 5, 6 }, { 30, 30, 30 } }, x)
    x[{ {}, i }] = 0
    same({ { 0, 10, 0 }, { 0, 5, 0 }, { 0, 30, 0 } }, x)
    x[{ i, i }] = { 1, 2 }
    same({ { 2, 10, 0 }, { 0, 5, 0 }, { 0, 30, 1 } }, x)
    x[{ { 1, 2 }, i }] = { { 3, 4 }, { 5, 6 } }
    same({ { 4, 10, 3 }, { 6, 5, 5 }, { 0, 30, 1 } }, x)
  end)

  it("records assignments", function()
    local w = nyx.tensor({ 1, 2, 3 }, { requires_grad = true })
    local y = w * 2
    y[2] = 0
    y:sum():backward()
    same({ 2, 0, 2 }, w.grad)
  end)
end)

describe("methods written in Lua", function()
  local x = nyx.arange(1, 7):reshape(2, 3)

  it("split and chunk and unbind give views", function()
    local function shapes(list)
      local out = {}
      for i, part in ipairs(list) do out[i] = table.concat(part.shape, "x") end
      return table.concat(out, " ")
    end
    assert.are.equal("2x2 2x1", shapes(x:split(2, 2)))
    assert.are.equal("2x1 2x2", shapes(x:split({ 1, 2 }, 2)))
    assert.are.equal("1x3 1x3", shapes(x:chunk(2)))
    assert.are.equal("2x2 2x1", shapes(x:chunk(2, -1)))
    assert.are.equal("3 3", shapes(x:unbind()))
    assert.are.equal("2 2 2", shapes(x:unbind(2)))
    assert.is_true(x:split(1)[1]:shares(x))
    assert.are.equal("0x3", shapes(nyx.zeros(0, 3):split(2)))
  end)

  it("slice includes both ends", function()
    same({ { 2, 3 }, { 5, 6 } }, x:slice(2, 2, 3))
    same({ { 1, 3 }, { 4, 6 } }, x:slice(2, 1, -1, 2))
  end)

  it("shapes", function()
    same({ { 1, 4 }, { 2, 5 }, { 3, 6 } }, x:t())
    assert.are.same({ 3, 2 }, x:view_as(x:t()).shape)
    assert.are.same({ 3, 2 }, x:reshape_as(x:t()).shape)
    assert.are.same({ 2, 3 }, nyx.ones(3):expand_as(x).shape)
    assert.are.same({ 2, 3, 1 }, x:unflatten(2, { 3, -1 }).shape)
    same({ 5, 7, 9 }, x:sum_to_size({ 3 }))
    same({ { 6 }, { 15 } }, x:sum_to_size({ 2, 1 }))
  end)

  it("comparisons", function()
    assert.is_true(x:equal(x:clone()))
    assert.is_false(x:equal(x + 1))
    assert.is_false(x:equal(x:t()))
    assert.is_true(x:allclose(x + 1e-6))
    assert.is_false(x:allclose(x + 0.01))
    assert.is_true(x:allclose(x + 0.01, 0, 0.02))
    local inf = nyx.tensor({ math.huge, 0 / 0 })
    assert.is_false(inf:allclose(inf))
    assert.is_true(inf:allclose(inf, 0, 0, true))
    assert.is_true(nyx.tensor({ math.huge }):allclose(nyx.tensor({ math.huge })))
    assert.is_false(nyx.tensor({ 1 }):allclose(nyx.tensor({ math.huge })))
  end)

  it("like another tensor", function()
    local y = nyx.zeros(2, 3, { dtype = "float64" })
    assert.are.equal("float64", nyx.ones_like(y).dtype)
    same({ { 1, 1, 1 }, { 1, 1, 1 } }, nyx.ones_like(y))
    same({ { 3, 3, 3 }, { 3, 3, 3 } }, nyx.full_like(y, 3))
    assert.are.equal("int32", nyx.zeros_like(y, { dtype = "int32" }).dtype)
    assert.is_true(nyx.randn_like(y, { requires_grad = true }).requires_grad)
    assert.are.same({ 2, 3 }, nyx.empty_like(y).shape)
  end)
end)

describe("random numbers", function()
  it("repeat after manual_seed", function()
    nyx.manual_seed(42)
    local a, b = nyx.randn(5), nyx.rand(5)
    nyx.manual_seed(42)
    assert.is_true(a:equal(nyx.randn(5)))
    assert.is_true(b:equal(nyx.rand(5)))
    assert.is_false(b:equal(nyx.rand(5)))
    assert.are.equal(42, nyx.initial_seed())
  end)

  it("fill in place", function()
    nyx.manual_seed(1)
    local x = nyx.zeros(1000)
    x:uniform_(2, 3)
    assert.is_true(x:ge(2):all():item() and x:le(3):all():item())
    x:normal_(10, 0.5)
    assert.is_true(math.abs(x:mean():item() - 10) < 0.1)
  end)
end)

describe("gradients", function()
  it("backward adds to .grad", function()
    local x = nyx.tensor({ 1, 2, 3 }, { requires_grad = true })
    local y = (x * x):sum()
    y:backward({ retain_graph = true })
    same({ 2, 4, 6 }, x.grad)
    y:backward()
    same({ 4, 8, 12 }, x.grad)
    x:zero_grad()
    assert.is_nil(x.grad)
    local z = x * x
    z:backward(nyx.tensor({ 1, 0, 2 }))
    same({ 2, 0, 12 }, x.grad)
    x.grad = nil
    z = x * x
    z:backward { gradient = nyx.tensor({ 1, 0, 0 }) }
    same({ 2, 0, 0 }, x.grad)
  end)

  it("nyx.grad gives them", function()
    local x = nyx.tensor({ 3 }, { requires_grad = true })
    local z = nyx.tensor({ 3 }, { requires_grad = true })
    local y = x ^ 3
    local g = nyx.grad(y:sum(), x, { create_graph = true })
    same({ 27 }, g)
    same({ 18 }, nyx.grad(g:sum(), x))
    assert.is_nil(x.grad)
    local list = nyx.grad((x * 2):sum(), { z, x })
    assert.is_nil(list[1])
    same({ 2 }, list[2])
    assert.is_nil((nyx.grad((x * 2):sum(), z)))
  end)

  it("detach and requires_grad_", function()
    local x = nyx.ones(2):requires_grad_()
    assert.is_true(x.requires_grad)
    assert.is_false(x:detach().requires_grad)
    assert.is_true(x:detach():shares(x))
    assert.is_false(x:requires_grad_(false).requires_grad)
  end)

  it("no_grad and enable_grad", function()
    local x = nyx.ones(2, { requires_grad = true })
    local y, extra = nyx.no_grad(function(a)
      assert.is_false(nyx.is_grad_enabled())
      local inner = nyx.enable_grad(function() return a * 2 end)
      assert.is_true(inner.requires_grad)
      return a * 2, "more"
    end, x)
    assert.are.equal("more", extra)
    assert.is_false(y.requires_grad)
    assert.is_true(nyx.is_grad_enabled())
  end)

  it("no_grad restores the mode after an error, and keeps the error", function()
    local problem = {}
    local ok, err = pcall(nyx.no_grad, function() error(problem) end)
    assert.is_false(ok)
    assert.are.equal(problem, err)
    assert.is_true(nyx.is_grad_enabled())
    nyx.set_grad_enabled(false)
    assert.is_false(nyx.is_grad_enabled())
    nyx.set_grad_enabled(true)
  end)
end)

describe("printing", function()
  it("works at any size", function()
    assert.is_truthy(tostring(nyx.tensor({ 1, 2 })):find("float32 tensor of size 2", 1, true))
    assert.is_true(#tostring(nyx.zeros(1000, 1000)) < 5000)
    assert.is_string(tostring(nyx.zeros(0, 3)))
    assert.is_string(tostring(nyx.tensor(1)))
    assert.is_string(tostring(nyx.zeros(2, 2, 2, 2)))
  end)
end)

describe("the module", function()
  it("describes itself", function()
    assert.is_truthy(nyx.version:match("^%d+%.%d+%.%d+$"))
    assert.is_string(nyx.cpu_path())
    assert.is_string(nyx.blas())
    assert.are.equal("cpu", nyx.devices()[1].name)
    assert.is_true(nyx.get_num_threads() >= 1)
    assert.are.equal(nyx, require "nyx.core")
    assert.is_nil(nyx.no_such_module)
  end)

  it("has settings", function()
    nyx.set_default_dtype("float64")
    assert.are.equal("float64", nyx.zeros(1).dtype)
    assert.are.equal("float64", nyx.tensor({ 1 }).dtype)
    assert.are.equal("float64", nyx.get_default_dtype())
    nyx.set_default_dtype("float32")
    local threads = nyx.get_num_threads()
    nyx.set_num_threads(1)
    assert.are.equal(1, nyx.get_num_threads())
    nyx.set_num_threads(0)
    assert.are.equal(threads, nyx.get_num_threads())
  end)

  it("lists ops with all there is to know", function()
    local count, seen = 0, {}
    for op in nyx.ops() do
      count = count + 1
      assert.is_nil(seen[op.name])
      seen[op.name] = true
      assert.is_string(op.group)
      assert.is_string(op.doc)
      assert.is_true(#op.doc > 0)
      assert.is_function(nyx[op.name])
      for _, attr in ipairs(op.attrs) do assert.is_string(attr.type) end
    end
    assert.is_true(count > 50)
    local sum = nyx.op("sum")
    assert.are.equal("reduction", sum.kind)
    assert.are.equal("x", sum.inputs[1].name)
    assert.are.equal("dim", sum.attrs[1].name)
    assert.are.equal(false, sum.attrs[2].preset)
    assert.is_nil(nyx.op("no such op"))
  end)

  it("explains itself", function()
    local help = require "nyx.help"
    for op in nyx.ops() do
      assert.is_truthy(help.text(op.name):find(op.name, 1, true))
    end
    assert.is_truthy(help.text(nyx.matmul):find("matmul", 1, true))
    assert.is_truthy(help.text("x:split"):find("split", 1, true))
    assert.is_truthy(help.text():find("arithmetic", 1, true))
    assert.is_nil((help.text("no_such_thing")))
  end)

  it("makes no globals", function()
    local before = {}
    for name in pairs(_G) do before[name] = true end
    for name in pairs(package.loaded) do
      if name:find("^nyx") and name ~= "nyx.core" then package.loaded[name] = nil end
    end
    assert.are.equal(nyx, require "nyx")
    for name in pairs(_G) do assert.is_true(before[name], name) end
  end)
end)

describe("nyx.class", function()
  it("makes classes with inheritance", function()
    local Animal = nyx.class("Animal")
    function Animal:init(name) self.name = name end
    function Animal:speak() return self.name .. " speaks" end
    function Animal.__tostring(self) return "<" .. self.name .. ">" end
    local Dog = nyx.class("Dog", Animal)
    function Dog:speak() return Dog.super.speak(self) .. " loudly" end
    local dog = Dog("Rex")
    assert.are.equal("Rex speaks loudly", dog:speak())
    assert.are.equal("<Rex>", tostring(dog))
    assert.are.equal("Dog", Dog.__name)
    assert.are.equal(Dog, getmetatable(dog))
    assert.has_error(function() nyx.class() end)
    assert.has_error(function() nyx.class("X", 3) end)
  end)
end)
