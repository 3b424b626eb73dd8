-- nyx.optim against PyTorch 2.13: the parameter after each of four steps with given
-- gradients, in float64; state, groups, schedules, errors.
local nyx = require "nyx"
local optim = nyx.optim

local gradients = {
  { 0.5, -1.0, 0.25 }, { 0.1, 0.8, -0.3 }, { -0.4, 0.2, 0.9 }, { 1.5, -0.6, 0.05 },
}

-- torch.optim.<name>([p], **options) from p = (1, -2, 3).
local sequences = {
  { "SGD", { lr = 0.1 }, {
    { 0.95, -1.9, 2.975 },
    { 0.94, -1.98, 3.005 },
    { 0.98, -2, 2.915 },
    { 0.83, -1.94, 2.91 },
  } },
  { "SGD", { lr = 0.1, weight_decay = 0.05, maximize = true }, {
    { 1.045, -2.09, 3.01 },
    { 1.049775, -1.99955, 2.96495 },
    { 1.004526125, -1.96955225, 3.04012525 },
    { 1.14950349437, -2.01970448875, 3.02992462375 },
  } },
  { "SGD", { lr = 0.1, momentum = 0.9 }, {
    { 0.95, -1.9, 2.975 },
    { 0.895, -1.89, 2.9825 },
    { 0.8855, -1.901, 2.89925 },
    { 0.72695, -1.8509, 2.819325 },
  } },
  { "SGD", { lr = 0.1, momentum = 0.8, dampening = 0.3, weight_decay = 0.01 }, {
    { 0.949, -1.898, 2.972 },
    { 0.9005357, -1.8710714, 2.9685196 },
    { 0.88913388501, -1.86221877002, 2.90065731628 },
    { 0.774390039298, -1.8118331129, 2.84083702918 },
  } },
  { "SGD", { lr = 0.1, momentum = 0.9, nesterov = true, weight_decay = 0.02 }, {
    { 0.9012, -1.8024, 2.9411 },
    { 0.83665544, -1.86331088, 2.96181382 },
    { 0.862008205328, -1.88029441066, 2.77649534548 },
    { 0.562056042735, -1.75978842907, 2.67598930098 },
  } },
  { "Adam", { lr = 0.1 }, {
    { 0.900000002, -1.900000001, 2.900000004 },
    { 0.819695906385, -1.89418749633, 2.91429447655 },
    { 0.810325966358, -1.89961316866, 2.86008109272 },
    { 0.753928672025, -1.8792073206, 2.8127707477 },
  } },
  { "Adam", { lr = 0.05, betas = { 0.8, 0.95 }, eps = 1e-06, weight_decay = 0.1 }, {
    { 0.950000083333, -1.95000004167, 2.95000009091 },
    { 0.907527222598, -1.93954285102, 2.91852553886 },
    { 0.895709238403, -1.93204785313, 2.87757368852 },
    { 0.862070335203, -1.90968088733, 2.83856181674 },
  } },
  { "Adam", { lr = 0.1, amsgrad = true, maximize = true }, {
    { 1.099999998, -2.099999999, 3.099999996 },
    { 1.18030409362, -2.10581250367, 3.08570552345 },
    { 1.18967403364, -2.10038683134, 3.13991890728 },
    { 1.24607132797, -2.1207926794, 3.1872292523 },
  } },
  { "AdamW", { lr = 0.1 }, {
    { 0.899000002, -1.898000001, 2.897000004 },
    { 0.817796906383, -1.89028949633, 2.90839747654 },
    { 0.80760916945, -1.89382487916, 2.85127569524 },
    { 0.750404265947, -1.87152520623, 2.80111407453 },
  } },
  { "AdamW", { lr = 0.1, weight_decay = 0.2, amsgrad = true }, {
    { 0.880000002, -1.860000001, 2.840000004 },
    { 0.782095906345, -1.81698749631, 2.79749447647 },
    { 0.757084048191, -1.78607341871, 2.68733120311 },
    { 0.685545072894, -1.72994610228, 2.58627423403 },
  } },
  { "RMSprop", { lr = 0.05 }, {
    { 0.5000001, -1.50000005, 2.5000002 },
    { 0.401467191601, -1.81330420546, 2.88490028069 },
    { 0.711955411119, -1.8910669541, 2.42570619491 },
    { 0.252167974941, -1.67878431987, 2.40010053665 },
  } },
  { "RMSprop", { lr = 0.05, alpha = 0.9, momentum = 0.7, weight_decay = 0.01 }, {
    { 0.841886126796, -1.84188612189, 2.84188613485 },
    { 0.696632828715, -1.83055615171, 2.84424114791 },
    { 0.6963369793, -1.84668680655, 2.69849110861 },
    { 0.548617911514, -1.78220461033, 2.58362546954 },
  } },
  { "RMSprop", { lr = 0.05, alpha = 0.9, centered = true, momentum = 0.5 }, {
    { 0.833333344444, -1.83333333889, 2.83333335556 },
    { 0.715057191218, -1.85196255412, 2.87427397624 },
    { 0.759810306906, -1.88776976033, 2.74238296196 },
    { 0.62690999312, -1.83109862475, 2.66752071807 },
  } },
}

local function parameter(dtype)
  return nyx.tensor({ 1, -2, 3 }, { dtype = dtype or "float64" }):requires_grad_(true)
end

local function close(expected, got, tolerance)
  for i = 1, #expected do
    local difference = math.abs(expected[i] - got[i])
    assert.is_true(difference <= tolerance * math.max(1, math.abs(expected[i])),
      ("element %d: expected %.12g, got %.12g"):format(i, expected[i], got[i]))
  end
end

local function describe_options(options)
  local parts = {}
  for name, value in pairs(options) do
    parts[#parts + 1] = ("%s=%s"):format(name, type(value) == "table" and "{...}"
      or tostring(value))
  end
  table.sort(parts)
  return table.concat(parts, " ")
end

describe("optim", function()
  for _, case in ipairs(sequences) do
    local name, options, steps = case[1], case[2], case[3]
    it(("%s %s follows PyTorch"):format(name, describe_options(options)), function()
      local p = parameter()
      local optimizer = optim[name]({ p }, options)
      for k, expected in ipairs(steps) do
        p.grad = nyx.tensor(gradients[k], { dtype = "float64" })
        optimizer:step()
        close(expected, p:totable(), 1e-11)
      end
    end)
  end

  for _, name in ipairs { "SGD", "Adam", "AdamW", "RMSprop" } do
    it(name .. " works in every float dtype, on strided and large parameters", function()
      local tolerance = { float32 = 1e-6, float16 = 4e-3, bfloat16 = 3e-2 }
      for dtype, limit in pairs(tolerance) do
        local p, exact = parameter(dtype), parameter()
        local a = optim[name]({ p }, { lr = 0.1 })
        local b = optim[name]({ exact }, { lr = 0.1 })
        for k = 1, 3 do
          p.grad = nyx.tensor(gradients[k], { dtype = dtype })
          exact.grad = nyx.tensor(gradients[k], { dtype = "float64" })
          a:step()
          b:step()
        end
        close(exact:totable(), p:totable(), limit)
      end
      -- A transposed parameter takes the same steps as a plain one.
      nyx.manual_seed(3)
      local start, grad = nyx.randn({ 70, 300 }), nyx.randn({ 70, 300 })
      local plain = start:clone():requires_grad_(true)
      local turned = start:t():contiguous():t():requires_grad_(true)
      assert.is_false(turned:is_contiguous())
      for _, p in ipairs { plain, turned } do
        p.grad = grad
        optim[name]({ p }, { lr = 0.1 }):step()
      end
      assert.is_true(plain:eq(turned):all():item())
      assert.is_false(plain:eq(start):all():item())
    end)
  end

  it("lets means decay to zero, not to numbers too small to be fast", function()
    local p = parameter("float32")
    local optimizer = optim.Adam({ p }, { lr = 0.1 })
    p.grad = nyx.full({ 3 }, 1e-30)
    optimizer:step()
    p.grad = nyx.zeros({ 3 })
    for _ = 1, 500 do optimizer:step() end
    -- Without fused multiply-add the last normal numbers stay where they are.
    for _, mean in ipairs(optimizer.state[p].exp_avg:totable()) do
      assert.is_true(mean == 0 or mean >= 2 ^ -126 and mean < 2 ^ -120, mean)
    end
  end)

  it("go on after a step that ran out of memory", function()
    for _, name in ipairs { "SGD", "Adam", "AdamW", "RMSprop" } do
      local options = { lr = 0.1, momentum = (name == "SGD" or name == "RMSprop") and 0.9 or nil }
      local p, q = parameter(), parameter()
      local failing, calm = optim[name]({ p }, options), optim[name]({ q }, options)
      for _, t in ipairs { p, q } do t.grad = nyx.ones({ 3 }, { dtype = "float64" }) end
      calm:step()
      for n = 0, 100 do
        nyx.memory_fail_after(n)
        local ok = pcall(failing.step, failing)
        nyx.memory_fail_after(-1)
        if ok then break end
        assert.is_true(n < 100)
        assert.are.same({ 1, -2, 3 }, p:totable())
      end
      assert.are.same(q:totable(), p:totable())
    end
  end)

  -- A pair of parameters with gradients whose norm, as of one vector, is 13.
  local function pair()
    local function double(values) return nyx.tensor(values, { dtype = "float64" }) end
    local a, b = double { 1, -2, 3 }:requires_grad_(true), double { { 0.5 } }:requires_grad_(true)
    a.grad, b.grad = double { 3, -4, 0 }, double { { 12 } }
    return { a, b }
  end

  for _, case in ipairs {
    { "SGD", {} }, { "SGD", { momentum = 0.9, nesterov = true, maximize = true } },
    { "SGD", { momentum = 0.5, weight_decay = 0.1 } },
    { "Adam", { eps = 0.1, weight_decay = 0.1 } },
    { "AdamW", { eps = 0.1, amsgrad = true } }, { "RMSprop", { eps = 0.1, momentum = 0.5 } },
  } do
    it(case[1] .. " limits the norm of all gradients together within its step", function()
      for _, most in ipairs { 100, 2, 0.25 } do
        local options = { lr = 0.5, max_grad_norm = most }
        for key, value in pairs(case[2]) do options[key] = value end
        local fused, plain = pair(), pair()
        local one = optim[case[1]](fused, options)
        options.max_grad_norm = nil
        local two = optim[case[1]](plain, options)
        for _ = 1, 3 do
          one:step()
          assert.equal(13, one.grad_norm)
          nyx.nn.utils.clip_grad_norm_(plain, most)
          two:step()
          for i = 1, 2 do
            assert.is_true((fused[i] - plain[i]):abs():max():item() < 1e-14)
            plain[i].grad = pair()[i].grad
          end
        end
        assert.same({ 3, -4, 0 }, fused[1].grad:totable()) -- only read
      end
    end)
  end

  it("limits gradients that are not finite as clip_grad_norm_ does", function()
    local params = pair()
    local optimizer = optim.SGD(params, { lr = 1, max_grad_norm = 1 })
    params[1].grad[1] = 0 / 0
    optimizer:step()
    assert.is_true(params[1]:isnan():all():item() and params[2]:isnan():all():item())
    params = pair()
    optimizer = optim.SGD(params, { lr = 1, max_grad_norm = 1 })
    params[1].grad[1] = math.huge
    optimizer:step()
    assert.same({ true, false, false }, params[1]:isnan():totable())
    assert.equal(0.5, params[2]:item())
  end)

  it("limits the norm for optimisers of one's own too", function()
    local Own = nyx.class("Own", optim.Optimizer)
    function Own:init(params, options)
      self:setup("Own", params, options, { lr = 1, weight_decay = 0 }, "lr weight_decay")
    end
    function Own:update(group, own, grad) -- luacheck: no self
      own:sub_(grad * group.lr)
    end
    local params = pair()
    Own(params, { max_grad_norm = 6.5 }):step()
    assert.near(-0.5, params[1][1]:item(), 1e-6)
    assert.near(0, params[1][2]:item(), 1e-6)
    assert.error_matches(function() Own(params, { speed = 1 }) end, "unknown option 'speed'")
    assert.error_matches(function() optim.SGD(params, { max_grad_norm = -1 }) end, "max_grad_norm")
  end)

  it("leaves parameters without a gradient alone", function()
    local p, q = parameter(), parameter()
    local optimizer = optim.Adam({ p, q }, { lr = 0.1 })
    p.grad = nyx.ones({ 3 }, { dtype = "float64" })
    optimizer:step()
    assert.are.same({ 1, -2, 3 }, q:totable())
    assert.are_not.same({ 1, -2, 3 }, p:totable())
    assert.is_nil(optimizer.state[q])
  end)

  it("zero_grad forgets gradients, step calls its closure", function()
    local p = parameter()
    local optimizer = optim.SGD({ p }, { lr = 0.25 })
    local result = optimizer:step(function()
      optimizer:zero_grad()
      local loss = (p * p):sum()
      loss:backward()
      return loss
    end)
    assert.are.equal(14, result:item())
    assert.are.same({ 0.5, -1, 1.5 }, p:totable())
    assert.is_not_nil(p.grad)
    optimizer:zero_grad()
    assert.is_nil(p.grad)
  end)

  it("groups have settings of their own", function()
    local p, q = parameter(), parameter()
    local optimizer = optim.SGD({ { params = { p } }, { params = { q }, lr = 1 } }, { lr = 0.5 })
    for _, t in ipairs { p, q } do t.grad = nyx.ones({ 3 }, { dtype = "float64" }) end
    optimizer:step()
    assert.are.same({ 0.5, -2.5, 2.5 }, p:totable())
    assert.are.same({ 0, -3, 2 }, q:totable())
  end)

  it("a restored optimiser goes on as if nothing had happened", function()
    for _, case in ipairs { { "SGD", { lr = 0.1, momentum = 0.9 } }, { "Adam", { lr = 0.1 } },
      { "AdamW", { lr = 0.1, amsgrad = true } }, { "RMSprop", { centered = true } } } do
      local p = parameter()
      local first = optim[case[1]]({ p }, case[2])
      local function advance(optimizer, target, k)
        target.grad = nyx.tensor(gradients[k], { dtype = "float64" })
        optimizer:step()
      end
      advance(first, p, 1)
      advance(first, p, 2)
      local q = p:detach():clone():requires_grad_(true)
      local second = optim[case[1]]({ q }, { lr = 5 })
      second:load_state_dict(first:state_dict())
      for k = 3, 4 do
        advance(first, p, k)
        advance(second, q, k)
      end
      assert.are.same(p:totable(), q:totable())
    end
  end)

  it("refuses a state that does not fit", function()
    local optimizer = optim.Adam({ parameter() }, { lr = 0.1 })
    local other = optim.Adam({ parameter(), parameter() }, { lr = 0.1 })
    assert.has_error(function() optimizer:load_state_dict(other:state_dict()) end)
    local state = optimizer:state_dict()
    state.state[1] = { step = 1, exp_avg = nyx.zeros({ 2 }), exp_avg_sq = nyx.zeros({ 2 }) }
    local ok, message = pcall(optimizer.load_state_dict, optimizer, state)
    assert.is_false(ok)
    assert.matches("expected %(3%)", message)
  end)

  it("names what is wrong with its arguments", function()
    local function message(...)
      local ok, text = pcall(...)
      assert.is_false(ok)
      return text
    end
    local p = parameter()
    assert.matches("unknown option 'learning_rate'; known: lr",
      message(optim.SGD, { p }, { learning_rate = 1 }))
    assert.matches("'lr' is number %-1, expected a number of at least 0",
      message(optim.SGD, { p }, { lr = -1 }))
    assert.matches("'params' is empty", message(optim.Adam, {}))
    assert.matches("appears twice", message(optim.Adam, { p, p }))
    assert.matches("parameter 1 was made by mul", message(optim.Adam, { p * 2 }))
    assert.matches("nesterov needs a momentum", message(optim.SGD, { p }, { nesterov = true }))
    assert.matches("betas%[2%] is 1", message(optim.Adam, { p }, { betas = { 0.9, 1 } }))
    -- The line is this file's, however deep the check sits.
    assert.matches("optim_spec.lua:%d+: optim.SGD", message(function()
      return optim.SGD({ p }, { lr = "fast" })
    end))
  end)
end)

describe("learning-rate schedules", function()
  local function rates(schedule, optimizer, epochs)
    local list = { optimizer.param_groups[1].lr }
    for _ = 1, epochs do
      schedule:step()
      list[#list + 1] = optimizer.param_groups[1].lr
    end
    return list
  end

  it("StepLR, ExponentialLR and CosineAnnealingLR follow their formulas", function()
    local optimizer = optim.SGD({ parameter() }, { lr = 0.8 })
    close({ 0.8, 0.8, 0.4, 0.4, 0.2, 0.2 },
      rates(optim.StepLR(optimizer, { step_size = 2, gamma = 0.5 }), optimizer, 5), 1e-15)
    optimizer = optim.SGD({ parameter() }, { lr = 0.8 })
    close({ 0.8, 0.72, 0.648, 0.5832 },
      rates(optim.ExponentialLR(optimizer, { gamma = 0.9 }), optimizer, 3), 1e-15)
    optimizer = optim.SGD({ parameter() }, { lr = 0.8 })
    local s = 0.35 * math.sqrt(2)
    close({ 0.8, 0.45 + 0.35 * math.sqrt(0.5), 0.45, 0.45 - s / 2, 0.1 },
      rates(optim.CosineAnnealingLR(optimizer, { T_max = 4, eta_min = 0.1 }), optimizer, 4),
      1e-15)
  end)

  it("goes on from a saved epoch", function()
    local optimizer = optim.SGD({ parameter() }, { lr = 1 })
    local schedule = optim.ExponentialLR(optimizer, { gamma = 0.5 })
    schedule:load_state_dict({ last_epoch = 3 })
    assert.are.equal(0.125, optimizer.param_groups[1].lr)
    assert.are.same({ 0.125 }, schedule:get_last_lr())
  end)
end)
