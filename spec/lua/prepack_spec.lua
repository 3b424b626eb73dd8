-- module:prepack and x:keep_packed. What is kept, and when, is in spec/c/packed_test.c.
local nyx = require "nyx"
local nn = nyx.nn

local function net()
  nyx.manual_seed(3)
  return nn.Sequential(nn.Conv2d(4, 24, 3, { padding = 1 }), nn.ReLU(), nn.Flatten(),
    nn.Sequential(nn.Linear(24 * 64, 96), nn.ReLU(), nn.Linear(96, 80)))
end

local function marked(model)
  local names = {}
  for name, tensor in model:named_parameters() do
    if tensor:packed_bytes() then names[#names + 1] = name end
  end
  return table.concat(names, " ")
end

describe("prepack", function()
  it("keeps the weights of all layers and gives the same results", function()
    local model = net():eval()
    local x = nyx.randn({ 64, 4, 8, 8 })
    nyx.no_grad(function()
      local y = model(x)
      assert.equal("", marked(model))
      assert.equal(model, model:prepack())
      assert.equal("1.weight 4.1.weight 4.3.weight", marked(model))
      for _ = 1, 2 do assert.is_true(model(x):allclose(y, 1e-5, 1e-6)) end
      assert.is_true(model(x):equal(model(x)))
    end)
  end)

  it("sees changes of a weight", function()
    local model = net():eval():prepack()
    local x = nyx.randn({ 64, 4, 8, 8 })
    nyx.no_grad(function()
      local y = model(x)
      model:load_state_dict(net():state_dict())
      assert.is_true(model(x):equal(y))
      model[4][3].weight:mul_(2)
      model[4][3].bias:mul_(2)
      assert.is_true(model(x):allclose(y * 2, 1e-5, 1e-5))
      model[4][3].weight:zero_()
      model[4][3].bias:zero_()
      assert.is_true(model(x):eq(0):all():item())
    end)
  end)

  it("ends with train and prepack(false)", function()
    local model = net():eval():prepack()
    model(nyx.randn({ 2, 4, 8, 8 }))
    model:eval()
    assert.are_not.equal("", marked(model))
    model:train()
    assert.equal("", marked(model))
    assert.equal("", marked(model:prepack():prepack(false)))
  end)

  it("gives the gradients of a model that trains on", function()
    local plain, kept = net(), net()
    kept:prepack()
    local x = nyx.randn({ 64, 4, 8, 8 })
    for _, model in ipairs { plain, kept } do
      local sgd = nyx.optim.SGD(model:parameters(), { lr = 0.01 })
      for _ = 1, 3 do
        model:zero_grad()
        model(x):square():mean():backward()
        sgd:step()
      end
    end
    for i, parameter in ipairs(plain:parameters()) do
      assert.is_true(parameter:allclose(kept:parameters()[i], 1e-4, 1e-6))
    end
  end)

  it("keeps a weight for positions that are one more than vectors", function()
    nyx.manual_seed(5)
    for _, dtype in ipairs { "float32", "float64" } do
      local w = nyx.randn(70, 50, 3, 3, { dtype = dtype })
      for _, size in ipairs { { 9, 9 }, { 5, 13 } } do
        local x = nyx.randn(1, 50, size[1], size[2], { dtype = dtype })
        local plain = nyx.conv2d(x, w)
        local kept = w:clone():keep_packed(true)
        assert.is_true(plain:eq(nyx.conv2d(x, kept)):all():item())
      end
    end
  end)

  it("keeps what Winograd's convolution makes of a weight, until that changes", function()
    nyx.manual_seed(4)
    local conv, x = nn.Conv2d(32, 48, 3, { padding = 1 }), nyx.randn(2, 32, 20, 20)
    nyx.no_grad(function()
      local plain = conv(x)
      conv:eval():prepack()
      for _ = 1, 2 do assert.is_true(plain:eq(conv(x)):all():item()) end
      if nyx.cpu_info().vector_bytes >= 32 then -- slower paths leave it to a BLAS
        assert.is_true(conv.weight:packed_bytes() > 0)
      end
      conv.weight:mul_(2)
      local fresh = nyx.conv2d(x, conv.weight:clone(), conv.bias, { padding = 1 })
      assert.is_true(fresh:eq(conv(x)):all():item())
      assert.is_false(fresh:eq(plain):any():item())
    end)
  end)

  it("says what it does not take", function()
    local ok, message = pcall(function() nyx.ones({ 2 }):keep_packed(1) end)
    assert.is_false(ok)
    assert.matches("keep_packed", message)
    assert.is_nil(nyx.ones({ 2 }):packed_bytes())
    assert.equal(0, nyx.ones({ 2 }):keep_packed():packed_bytes())
  end)
end)
