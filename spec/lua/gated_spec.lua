-- glu beyond what spec/op and spec/peers call it with: rows longer than its pieces, half types,
-- views, threads; the same gates in a product's own pass; nn.SwiGLU and nn.GEGLU.
local nyx = require "nyx"
local nn = nyx.nn
local unpack = table.unpack or unpack

local function differ(a, b)
  local most = (a:detach():double() - b:detach():double()):abs():max():item()
  return most == most and most or math.huge
end

local acts = { sigmoid = "sigmoid", silu = "silu", gelu = "gelu" }

describe("glu", function()
  it("is the halves' product, with its gradient, in rows of any length", function()
    nyx.manual_seed(4)
    local threads = nyx.get_num_threads()
    for name, act in pairs(acts) do
      for _, size in ipairs { { 3, 2 }, { 5, 2, 34 }, { 2, 9002 }, { 300, 130 } } do
        local x = nyx.randn(size, { dtype = "float64" }):requires_grad_()
        local half = size[#size] / 2
        local a, b = x:narrow(-1, 1, half), x:narrow(-1, half + 1, half)
        local want = a * b[act](b)
        local g = nyx.randn(want.shape, { dtype = "float64" })
        want:backward(g)
        local slope = x.grad
        for _, n in ipairs { 1, 3 } do
          nyx.set_num_threads(n)
          x.grad = nil
          local got = x:glu { activation = name }
          got:backward(g)
          assert(differ(got, want) < 1e-14, name)
          assert(differ(x.grad, slope) < 1e-13, name)
        end
        for dtype, bound in pairs { float32 = 4e-6, float16 = 1e-2, bfloat16 = 0.1 } do
          local y = x:detach():to(dtype):requires_grad_()
          local got = y:glu { activation = name }
          assert.equal(dtype, got.dtype)
          assert(differ(got, want) < bound, name .. dtype)
          got:backward(g:to(dtype))
          assert(differ(y.grad, slope) < 2 * bound, name .. dtype)
        end
      end
    end
    nyx.set_num_threads(threads)
  end)

  it("takes views, and what comes to nothing", function()
    local x = nyx.randn(6, 5)
    assert.equal(0, differ(x:transpose(1, 2):glu(), x:transpose(1, 2):contiguous():glu()))
    assert.same({ 0, 2 }, nyx.zeros(0, 4):glu().shape)
    assert.same({ 3, 0 }, nyx.zeros(3, 0):glu().shape)
  end)

  it("refuses what does not fit", function()
    assert.matches("'x' has shape %(2x3%), expected an even last size",
      select(2, pcall(nyx.glu, nyx.zeros(2, 3))))
    assert.matches("'activation' is \"relu\", expected sigmoid, silu or gelu",
      select(2, pcall(nyx.glu, nyx.zeros(4), { activation = "relu" })))
  end)
end)

describe("linear_activation with a gate", function()
  local f64 = { dtype = "float64" }

  it("is the row of the sums and the other input, with all gradients", function()
    nyx.manual_seed(8)
    for _, name in ipairs { "swiglu", "geglu", "gate", "mul" } do
      local x, w = nyx.randn({ 2, 70, 40 }, f64), nyx.randn({ 33, 40 }, f64)
      local b = nyx.randn({ 33 }, f64)
      local r, y = nyx.randn({ 2, 70, 33 }, f64), nyx.randn({ 2, 70, 33 }, f64)
      local leaves = { x, w, b, r, y }
      for _, leaf in ipairs(leaves) do leaf:requires_grad_() end
      local g = nyx.randn({ 2, 70, 33 }, f64)
      local want, slopes = nyx[name](x:linear(w, b), y) + r, {}
      want:backward(g)
      for i, leaf in ipairs(leaves) do slopes[i], leaf.grad = leaf.grad, nil end
      for _, keep in ipairs { true, false } do
        local got, sums = x:linear_activation(w, b, r, y, { activation = name, keep = keep })
        assert.equal(0, differ(got, want), name)
        assert.equal(keep and 0 or nil, sums and differ(sums, x:linear(w, b)))
        got:backward(g)
        for i, leaf in ipairs(leaves) do
          assert(differ(leaf.grad, slopes[i]) < 1e-12, name .. i)
          leaf.grad = nil
        end
      end
      y:requires_grad_(false) -- the gate alone, and what it multiplies alone
      x:linear_activation(w, b, nil, y, { activation = name }):backward(g)
      assert(differ(x.grad, slopes[1]) < 1e-12)
      assert.is_nil(y.grad)
      for _, leaf in ipairs(leaves) do leaf:requires_grad_(false) end
      y:requires_grad_()
      x:linear_activation(w, b, nil, y, { activation = name, keep = false }):backward(g)
      assert(differ(y.grad, slopes[5]) < 1e-12)
    end
  end)

  it("maps over a batch, whichever inputs have one", function()
    local sizes = { { 3, 4 }, { 5, 4 }, { 5 }, { 3, 5 }, { 3, 5 } }
    local options = { activation = "swiglu", keep = false }
    for set = 1, 31 do
      local in_dims, values = {}, {}
      for i, size in ipairs(sizes) do
        in_dims[i] = math.floor(set / 2 ^ (i - 1)) % 2 == 1 and 1 or false
        values[i] = nyx.randn(in_dims[i] and { 2, unpack(size) } or size, f64)
      end
      local function fused(x, w, b, r, y) return (x:linear_activation(w, b, r, y, options)) end
      local got = nyx.func.vmap(fused, { in_dims = in_dims })(unpack(values))
      for e = 1, 2 do
        local own = {}
        for i, v in ipairs(values) do own[i] = in_dims[i] and v[e] or v end
        assert(differ(got[e], fused(unpack(own))) < 1e-14, set)
      end
    end
  end)

  it("refuses what does not fit", function()
    local x, w, y = nyx.zeros(2, 3), nyx.zeros(4, 3), nyx.zeros(2, 4)
    local function message(...)
      return select(2, pcall(nyx.linear_activation, x, w, nil, nil, ...))
    end
    assert.matches("'activation'.*missing", message(y))
    assert.matches("\"relu\".*op of two float inputs.*swiglu", message(y, { activation = "relu" }))
    assert.matches("\"swiglu\".*op of one float input", message({ activation = "swiglu" }))
    assert.matches("'other' has shape %(4%)", message(nyx.zeros(4), { activation = "mul" }))
  end)
end)

describe("nn.SwiGLU and nn.GEGLU", function()
  it("pack values and gates in one weight", function()
    for name, act in pairs { SwiGLU = "silu", GEGLU = "gelu" } do
      local layer, x = nn[name](6, 10, { out_features = 3 }), nyx.randn(2, 4, 6)
      local names = {}
      for key in layer:named_parameters() do names[#names + 1] = key end
      assert.same({ "in_proj.weight", "in_proj.bias", "out_proj.weight", "out_proj.bias" }, names)
      local all = layer.in_proj(x)
      local gate = all:narrow(3, 11, 10)
      local want = layer.out_proj(all:narrow(3, 1, 10) * gate[act](gate))
      assert.same({ 2, 4, 3 }, want.shape)
      assert(differ(layer(x), want) < 1e-6)
    end
  end)

  it("are saved and loaded", function()
    local path, x, layer = os.tmpname(), nyx.randn(2, 6), nn.SwiGLU(6, 8, { bias = false })
    nyx.save(path, layer)
    assert.equal(0, differ(layer(x), nyx.load(path)(x)))
    os.remove(path)
  end)
end)
