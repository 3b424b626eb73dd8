-- Weights of few bits: quantize_weight and nn.QuantizedLinear. The products are in
-- spec/c/quantized_test.c and spec/op. Read next: lua/nyx/nn/quantized.lua.
local nyx = require "nyx"
local nn = nyx.nn

local function message_of(fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  return message
end

local kinds = { {}, { bits = 8 }, { symmetric = false },
  { bits = 8, symmetric = false, group = 48 }, { dtype = "float16", group = 16 } }

describe("quantize_weight", function()
  before_each(function() nyx.manual_seed(7) end)

  it("is off by at most half a step", function()
    for _, options in ipairs { { group = 32 }, { group = 32, symmetric = false }, { bits = 8 },
      { bits = 8, group = 3, symmetric = false } } do
      local w = nyx.randn({ 20, 96 }) * 3 + 1
      local packed, scales, zeros = nyx.quantize_weight(w, options)
      assert.equal(options.symmetric ~= false, zeros == nil)
      local off = (nyx.dequantize_weight(packed, scales, zeros) - w):abs()
      local step = scales:reshape(20, -1, 1):expand(20, scales:numel() / 20,
        96 * 20 / scales:numel()):reshape(20, 96)
      -- A zero point between two steps moves both ends of the range by half a step.
      local bound = options.symmetric == false and 1 or 0.5
      assert.is_true(off:le(step * bound + 1e-5):all():item())
    end
  end)

  it("keeps what integers can say", function()
    local w = nyx.tensor({ { -7.5, 7, 0.5, -0.5 }, { 0, 0, 0, 0 } })
    local packed, scales = nyx.quantize_weight(w)
    -- -7.5 is no step: it goes to -8, an even number; 0 is 8.
    assert.are.same({ { 0xF0, 0x88 }, { 0x88, 0x88 } }, packed:totable())
    assert.are.same({ { 1 }, { 1 } }, scales:totable())
  end)

  it("refuses what it cannot pack", function()
    local w = nyx.ones({ 2, 8 })
    assert.matches("'bits' is 3, expected 4 or 8", message_of(nyx.quantize_weight, w, { bits = 3 }))
    assert.matches("'group' is 3, expected an even number that divides the 8 features",
      message_of(nyx.quantize_weight, w, { group = 3 }))
    assert.matches("2 dimensions", message_of(nyx.quantize_weight, nyx.ones({ 8 })))
    assert.matches("2 dimensions", message_of(nyx.quantize_weight, nyx.ones({ 0, 8 })))
    assert.matches("'group' is 7", message_of(nyx.quantize_weight, nyx.ones({ 2, 7 })))
  end)
end)

describe("QuantizedLinear", function()
  before_each(function() nyx.manual_seed(7) end)

  it("computes what a linear layer with its weight does", function()
    for _, options in ipairs(kinds) do
      local linear = nn.Linear(96, 40)
      local layer = nn.QuantizedLinear.from_linear(linear, options)
      local w = nyx.dequantize_weight(layer.packed, layer.scales:float(),
        layer.zeros and layer.zeros:float())
      assert.is_true((w - linear.weight):abs():max():item() < 0.02)
      for _, shape in ipairs { { 96 }, { 1, 96 }, { 2, 3, 96 }, { 30, 96 } } do
        local x = nyx.randn(shape)
        local y = layer(x)
        assert.is_true(y:allclose(x:linear(w, layer.bias:float()), 1e-5, 1e-6))
        assert.equal("bfloat16", layer(x:bfloat16()).dtype)
      end
    end
  end)

  it("keeps the layer's activation, and adds a residual after it", function()
    local linear = nn.Linear(64, 8, { activation = "gelu" })
    local layer = nn.QuantizedLinear.from_linear(linear, { bits = 8 })
    local x, r = nyx.randn { 3, 64 }, nyx.randn { 3, 8 }
    local plain = nyx.linear_quantized(x, layer.packed, layer.scales, layer.zeros, layer.bias)
    assert.is_true(layer(x):equal(plain:gelu()))
    assert.is_true(layer(x, r):equal(plain:gelu() + r))
    assert.is_true((layer(x, r) - linear(x, r)):abs():max():item() < 0.05)
    assert.matches("activation=gelu", tostring(layer))
    local path = os.tmpname()
    nyx.save(path, layer)
    assert.is_true(nyx.load(path)(x):equal(layer(x)))
    os.remove(path)
    assert.matches("'activation' is \"nonsense\", expected", message_of(nn.QuantizedLinear, 32, 8,
      { activation = "nonsense" }))
  end)

  it("gives gradients to its input and bias, and has no other parameters", function()
    local layer = nn.QuantizedLinear.from_linear(nn.Linear(32, 8)):to "float64"
    assert.equal(1, #layer:parameters())
    local x = nyx.randn({ 3, 32 }, { dtype = "float64" }):requires_grad_()
    nyx.gradcheck(function(input) return layer(input) end, { x })
    layer(x):sum():backward()
    assert.is_true(layer.bias.grad:eq(3):all():item())
  end)

  it("comes back from a file and from a state", function()
    for _, options in ipairs(kinds) do
      local layer = nn.QuantizedLinear.from_linear(nn.Linear(96, 40), options)
      local path = os.tmpname()
      nyx.save(path, layer)
      local loaded = nyx.load(path)
      os.remove(path)
      local x = nyx.randn({ 2, 96 })
      assert.is_true(loaded(x):equal(layer(x)))
      local fresh = nn.QuantizedLinear(96, 40, { bits = options.bits, group = options.group,
        symmetric = options.symmetric, dtype = options.dtype })
      assert.is_true(fresh(x):eq(0):all():item())
      fresh:load_state_dict(layer:state_dict())
      assert.is_true(fresh(x):equal(layer(x)))
    end
  end)

  it("says what it is and refuses other layers", function()
    local layer = nn.QuantizedLinear(64, 8, { bias = false })
    assert.matches("in_features=64, out_features=8, bits=4, group=32, bias=false", tostring(layer))
    assert.matches("expected an nn.Linear", message_of(nn.QuantizedLinear.from_linear, nn.ReLU()))
    assert.matches("'group' is 32", message_of(nn.QuantizedLinear, 40, 8))
    assert.matches("has 32 features, 'packed' %(8x32%) of uint8 takes 64",
      message_of(layer.forward, layer, nyx.ones({ 2, 32 })))
  end)
end)
