-- glu beyond what spec/op and spec/peers call it with: rows longer than its pieces, half types,
-- views, threads; nn.SwiGLU and nn.GEGLU.
local nyx = require "nyx"
local nn = nyx.nn

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
