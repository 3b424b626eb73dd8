-- rotary beyond what spec/op and spec/peers call it with: what it means for attention, rows as
-- long as blocks of its loops, far positions, views, threads; and nn.RotaryEmbedding.
local nyx = require "nyx"
local nn = nyx.nn

local wide = { dtype = "float64" }

local function differ(a, b)
  local most = (a:detach():double() - b:detach():double()):abs():max():item()
  return most == most and most or math.huge
end

-- Element by element, in the numbers of Lua. x: (rows, features); position of row i: at(i).
local function by_hand(x, at, options)
  local values, dim, out = x:totable(), options.dim or x:size(2), {}
  local half = dim / 2
  for i, row in ipairs(values) do
    local turned = {}
    for k, value in ipairs(row) do turned[k] = value end
    for p = 1, half do
      local a, b = p, half + p
      if options.interleaved then a, b = 2 * p - 1, 2 * p end
      local angle = (at(i) - 1) * (options.base or 10000) ^ (-(p - 1) / half)
      if options.reverse then angle = -angle end
      local c, s = math.cos(angle), math.sin(angle)
      turned[a], turned[b] = row[a] * c - row[b] * s, row[b] * c + row[a] * s
    end
    out[i] = turned
  end
  return nyx.tensor(out, wide)
end

describe("rotary", function()
  for _, interleaved in ipairs { false, true } do
    it("turns pairs by their angles, interleaved = " .. tostring(interleaved), function()
      nyx.manual_seed(3)
      for _, size in ipairs { { 3, 2 }, { 5, 8 }, { 2, 34 }, { 7, 130 }, { 2, 1100 } } do
        local x = nyx.randn(size, wide)
        for _, o in ipairs { {}, { base = 300 }, { dim = 2 }, { reverse = true } } do
          o.interleaved, o.offset = interleaved, 4
          local want = by_hand(x, function(i) return i + 4 end, o)
          local what = table.concat(size, "x")
          assert(differ(x:rotary(o), want) < 1e-13, what)
          assert(differ(x:float():rotary(o), want) < 2e-6, what)
          for dtype, bound in pairs { float16 = 4e-3, bfloat16 = 3e-2 } do
            local y = x:to(dtype):rotary(o)
            assert.equal(dtype, y.dtype)
            assert(differ(y, want) < bound, what .. dtype)
          end
        end
      end
    end)
  end

  it("takes positions far away as exactly", function()
    local x, at = nyx.randn({ 4, 64 }, wide), { 1, 131072, 2 ^ 24 + 1, 77 }
    local positions = nyx.tensor(at, { dtype = "int64" })
    local want = by_hand(x, function(i) return at[i] end, {})
    assert(differ(x:rotary(positions), want) < 1e-9)
    assert(differ(x:float():rotary(positions), want) < 2e-6)
  end)

  it("makes scores depend on distances only", function()
    local q, k = nyx.randn({ 6, 16 }, wide), nyx.randn({ 6, 16 }, wide)
    local function scores(offset)
      return q:rotary { offset = offset }:matmul(k:rotary { offset = offset }:transpose(1, 2))
    end
    assert(differ(scores(0), scores(1000)) < 1e-10)
  end)

  it("gives tables and positions the same meaning", function()
    local x = nyx.randn({ 2, 3, 5, 12 }, wide)
    local cos, sin = nn.RotaryEmbedding(12):tables(40, "float64")
    local positions = nyx.tensor({ { { 3, 9, 1, 1, 30 } }, { { 2, 4, 6, 8, 10 } } },
      { dtype = "int64" })
    assert(differ(x:rotary { offset = 6 }, x:rotary(nil, cos, sin, { offset = 6 })) < 1e-14)
    assert(differ(x:rotary(positions), x:rotary(positions, cos, sin)) < 1e-14)
    assert(differ(x:rotary(positions, { offset = 2 }), x:rotary(positions + 2)) == 0)
    assert(differ(x:rotary(positions, cos, sin, { offset = 2 }),
      x:rotary(positions + 2, cos, sin)) == 0)
    for b = 1, 2 do
      assert(differ(x:rotary(positions)[b], x[b]:rotary(positions[b])) == 0)
    end
  end)

  it("reads views as they lie, and does not depend on the number of threads", function()
    local x = nyx.randn(2, 40, 6, 64)
    local view, threads = x:transpose(2, 3), nyx.get_num_threads()
    local want = view:contiguous():rotary()
    assert(differ(view:rotary(), want) == 0)
    assert(differ(x:transpose(3, 4):contiguous():transpose(3, 4):transpose(2, 3):rotary(),
      want) == 0)
    for _, n in ipairs { 1, 3 } do
      nyx.set_num_threads(n)
      assert(differ(view:rotary(), want) == 0)
    end
    nyx.set_num_threads(threads)
  end)

  it("refuses what does not fit", function()
    local x, i = nyx.zeros(2, 3, 6), { dtype = "int64" }
    local t = nyx.zeros(5, 3)
    local function message(...) return select(2, pcall(nyx.rotary, x, ...)) end
    assert.matches("'positions' has shape %(2%), expected %(.., length%)",
      message(nyx.tensor({ 1, 2 }, i)))
    assert.matches("'positions' is float32", message(nyx.zeros(3)))
    assert.matches("position 0 is out of range", message(nyx.tensor({ 1, 0, 2 }, i)))
    assert.matches("position 6 is out of range for dimension 1 of size 5",
      message(nyx.tensor({ 1, 6, 2 }, i), t, t))
    assert.matches("positions 4 to 6 reach beyond the tables of 5 rows",
      message { cos = t, sin = t, offset = 3 })
    assert.matches("reach beyond", message { cos = t, sin = t, offset = -1 })
    assert.matches("5 features are to turn", message { dim = 5 })
    assert.matches("8 features are to turn", message { dim = 8 })
    assert.matches("input 4 %(sin%) is missing", message { cos = t })
    assert.matches("'sin' has shape %(5x2%)", message { cos = t, sin = nyx.zeros(5, 2) })
    assert.matches("'base' is 0", message { base = 0 })
    assert.matches("'x' has shape %(6%)", select(2, pcall(nyx.rotary, nyx.zeros(6))))
    for _, offset in ipairs { 2^53 + 2, -2^53 - 2, 2^62 } do
      assert.matches("at most 2%^53 to either side", select(2, pcall(nyx.rotary, nyx.zeros(3, 4),
        { offset = offset })))
    end
  end)
end)

describe("nn.RotaryEmbedding", function()
  it("is rotary with tables that grow", function()
    local layer, x = nn.RotaryEmbedding(6, { base = 50, interleaved = true }), nyx.randn(2, 70, 8)
    local o = { base = 50, interleaved = true, dim = 6 }
    assert(differ(layer(x), x:rotary(o)) < 1e-6)
    o.offset = 1000
    assert(differ(layer(x, { offset = 1000 }), x:rotary(o)) < 1e-6)
    local positions = nyx.tensor({ 5, 900 }, { dtype = "int64" })
    o.offset = 0
    assert(differ(layer(x:narrow(2, 1, 2), { positions = positions }),
      x:narrow(2, 1, 2):rotary(positions, o)) < 1e-6)
    assert.same({}, layer:state_dict())
  end)

  it("keeps its tables exact in half types", function()
    local layer = nn.RotaryEmbedding(8)
    local x = nyx.ones({ 3000, 8 }, { dtype = "bfloat16" })
    layer:to "bfloat16"
    assert(differ(layer(x):narrow(1, 2990, 1), nyx.ones(3000, 8):rotary():narrow(1, 2990, 1))
      < 0.01)
  end)

  it("scales as Llama 3.1 and position interpolation do", function()
    local options = { base = 500000, scaling = { type = "llama3" } }
    local cos = nn.RotaryEmbedding(128, options):tables(3, "float64")
    for i = 1, 64 do
      local speed = 500000 ^ (-(i - 1) / 64)
      local wave, want = 2 * math.pi / speed, speed
      if wave > 8192 then
        want = speed / 8
      elseif wave > 8192 / 4 then
        local smooth = (8192 / wave - 1) / (4 - 1)
        want = (1 - smooth) * speed / 8 + smooth * speed
      end
      assert(math.abs(cos[3][i]:item() - math.cos(2 * want)) < 1e-14, i)
    end
    local linear = nn.RotaryEmbedding(8, { scaling = { type = "linear", factor = 4 } })
    local x = nyx.randn({ 9, 8 }, wide)
    assert(differ(linear(x)[9], nn.RotaryEmbedding(8)(x:narrow(1, 7, 3))[3]) < 1e-14)
    assert(differ(linear(x)[9], nn.RotaryEmbedding(8)(x)[9]) > 0.01)
  end)

  it("is saved and loaded", function()
    local path, x = os.tmpname(), nyx.randn(5, 8)
    local layer = nn.RotaryEmbedding(8, { base = 77, scaling = { type = "linear", factor = 3 } })
    nyx.save(path, layer)
    assert.equal(0, differ(layer(x), nyx.load(path)(x)))
    os.remove(path)
  end)

  it("refuses what does not fit", function()
    assert.matches("'dim' is 5, expected an even number", select(2, pcall(nn.RotaryEmbedding, 5)))
    assert.matches("'scaling.type' is string 'yarn', expected one of: linear llama3",
      select(2, pcall(nn.RotaryEmbedding, 4, { scaling = { type = "yarn" } })))
    assert.matches("unknown option 'offfset'",
      select(2, pcall(nn.RotaryEmbedding(4), nyx.zeros(2, 4), { offfset = 1 })))
  end)
end)
