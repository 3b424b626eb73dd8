-- nyx.checkpoint and nn.checkpoint_sequential: the same gradients to the last bit, less
-- memory, and the segments against an exhaustive search.
local nyx = require "nyx"
local nn = nyx.nn

local function message_of(...)
  local ok, text = pcall(...)
  assert.is_false(ok)
  return text
end

local function same(a, b)
  return a.dtype == b.dtype and table.concat(a.shape, "x") == table.concat(b.shape, "x")
    and a:eq(b):all():item()
end

local function all_same(a, b)
  assert.are.equal(#a, #b)
  for i = 1, #a do assert.is_true(same(a[i], b[i]), "tensor " .. i) end
end

-- Gradients of a loss in leaves, taken off them again.
local function gradients(loss, leaves)
  loss:backward()
  local grads = {}
  for i, leaf in ipairs(leaves) do grads[i], leaf.grad = leaf.grad, nil end
  return grads
end

local function randn(...)
  return nyx.randn({ ... }, { requires_grad = true })
end

describe("nyx.checkpoint", function()
  it("gives the same results and gradients, those of parameters included", function()
    nyx.manual_seed(1)
    local net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    local x, late = randn(4, 5), randn(4, 3)
    local leaves = net:parameters()
    leaves[#leaves + 1], leaves[#leaves + 2] = x, late
    local function loss(wrap)
      local c = late * 2 -- made outside: not a leaf
      local function f(a, times) return net(a) * c * times end
      local y = wrap and nyx.checkpoint(f, x:exp(), 3) or f(x:exp(), 3)
      return (y * y):sum(), y
    end
    local plain, y = loss(false)
    local wrapped, z = loss(true)
    assert.is_true(same(y, z))
    assert.are.equal("checkpoint", z.grad_fn.name)
    all_same(gradients(plain, leaves), gradients(wrapped, leaves))
  end)

  it("keeps only the arguments", function()
    local x = randn(1000)
    local function f(a)
      for _ = 1, 20 do a = a:tanh() end
      return a
    end
    collectgarbage()
    collectgarbage()
    local before = nyx.memory().live
    local y = nyx.checkpoint(f, x)
    assert.is_true(nyx.memory().live - before < 3 * 4096) -- the result and the node
    nyx.memory_reset_peak()
    y:sum():backward()
    assert.is_true(nyx.memory().peak - before > 20 * 4000)
    y = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.is_true(nyx.memory().live - before < 3 * 4096) -- x.grad
  end)

  it("brings random numbers again, and leaves them where they were", function()
    local x = randn(50)
    local function f(a) return a:dropout(0.5) * nyx.rand(50) end
    nyx.manual_seed(3)
    local expected = gradients(f(x):sum(), { x })
    local after = nyx.rand(4)
    nyx.manual_seed(3)
    local y = nyx.checkpoint(f, x)
    local state = nyx.get_rng_state()
    local got = gradients(y:sum(), { x })
    assert.are.equal(state, nyx.get_rng_state())
    all_same(expected, got)
    assert.is_true(same(after, nyx.rand(4)))
  end)

  it("brings mixed precision again", function()
    nyx.manual_seed(4)
    local net, x = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 2)), randn(3, 6)
    local leaves = net:parameters()
    leaves[#leaves + 1] = x
    local function loss(wrap)
      return nyx.autocast(function()
        local _ = net(x) -- what was cast outside is not used inside
        return (wrap and nyx.checkpoint(net, x) or net(x)):sum()
      end)
    end
    all_same(gradients(loss(false), leaves), gradients(loss(true), leaves))
    local outside = nyx.autocast(function() -- and off where it was off
      return gradients(nyx.autocast({ enabled = false }, nyx.checkpoint, net, x):sum(), leaves)
    end)
    all_same(gradients(net(x):sum(), leaves), outside)
    assert.is_false(nyx.is_autocast_enabled())
  end)

  it("nests", function()
    nyx.manual_seed(5)
    local a, b, x = nn.Linear(4, 4), nn.Linear(4, 4), randn(2, 4)
    local leaves = { a.weight, a.bias, b.weight, b.bias, x }
    local runs = 0
    local function inner(h) runs = runs + 1 return b(h):tanh():dropout(0.2) end
    local function f(wrap)
      return function(h) return (wrap and nyx.checkpoint(inner, a(h)) or inner(a(h))):sigmoid() end
    end
    nyx.manual_seed(6)
    local expected = gradients(f(false)(x):sum(), leaves)
    nyx.manual_seed(6)
    runs = 0
    local y = nyx.checkpoint(f(true), x)
    assert.are.equal(1, runs)
    local got = gradients(y:sum(), leaves)
    assert.are.equal(3, runs)
    all_same(expected, got)
  end)

  it("takes and gives anything", function()
    local x, w = randn(3), randn(3)
    local function f(a, options, k, label)
      assert.is_nil(k)
      return a * options.w, label, nil, a:gt(0), (a * 2):sum(), a, nyx.ones(2)
    end
    local results = { nyx.checkpoint(f, x, { w = w }, nil, "yes") }
    assert.are.equal("yes", results[2])
    assert.is_nil(results[3])
    assert.are.equal("bool", results[4].dtype)
    assert.are.equal("checkpoint", results[6].grad_fn.name)
    assert.is_false(results[7].requires_grad)
    local grads = gradients((results[1] * results[1]):sum() + results[5] * 3
      + (results[6] * 5):sum(), { x, w })
    local direct = gradients(((x * w) * (x * w)):sum() + (x * 2):sum() * 3 + (x * 5):sum(),
      { x, w })
    for i = 1, 2 do assert.is_true((grads[i] - direct[i]):abs():max():item() < 1e-5) end
    -- one of several results, and none at all
    results = { nyx.checkpoint(f, x, { w = w }, nil, "yes") }
    assert.are.same({ 2, 2, 2 }, gradients(results[5], { x })[1]:totable())
    assert.is_nil((nyx.checkpoint(function() end, x)))
  end)

  it("reaches the tensors in tables among its results", function()
    local function block(x)
      return { hidden = x * 3, deep = { x * x, x }, kept = "text" }, x:exp()
    end
    local x = randn(3)
    local function loss(r, e) return (r.hidden * r.deep[1] + r.deep[2] * e):sum() end
    local got, e = nyx.checkpoint(block, x)
    assert.are.equal("text", got.kept)
    for _, t in ipairs { got.hidden, got.deep[1], got.deep[2], e } do
      assert.are.equal("checkpoint", t.grad_fn.name)
    end
    all_same(gradients(loss(block(x)), { x }), gradients(loss(got, e), { x }))
    -- behind another op, and one result of several
    local outer, p = randn(3), randn(3)
    local r = nyx.checkpoint(function(h) return { y = h * p, z = h } end, outer * 2)
    r.y:sum():backward()
    assert.is_true(same(outer.grad, p.detach(p) * 2))
    assert.is_true(same(p.grad, outer:detach() * 2))
  end)

  it("leaves random numbers alone where asked to", function()
    local x, draws = randn(2), {}
    local y = nyx.checkpoint({ preserve_rng_state = false }, function(a)
      draws[#draws + 1] = nyx.rand(1):item()
      return a:exp()
    end, x)
    y:sum():backward()
    assert.are.equal(2, #draws)
    assert.are_not.equal(draws[1], draws[2])
    assert.is_true(same(x.grad, x:exp():detach()))
    assert.matches("checkpoint: unknown option 'rng'; known: preserve_rng_state",
      message_of(nyx.checkpoint, { rng = 1 }, print))
    assert.matches("checkpoint: 'f' is nil", message_of(nyx.checkpoint, {}))
  end)

  it("is the function itself where nothing is recorded", function()
    local x = randn(3)
    local y = nyx.no_grad(nyx.checkpoint, function(a) return a * 2 end, x)
    assert.is_false(y.requires_grad)
    assert.is_false(nyx.checkpoint(function(a) return a * 2 end, x:detach()).requires_grad)
    assert.is_true(nyx.checkpoint(function() return x * 2 end).requires_grad)
    local calls = 0
    nyx.checkpoint(function(a) calls = calls + 1 return a * 2 end, x:detach())
    assert.are.equal(1, calls)
  end)

  it("works inside func.grad, jvp and vmap", function()
    local f = function(v) return v:sin() * v end
    local wrapped = function(v) return nyx.checkpoint(f, v) end
    local x = nyx.randn(4)
    local function sum(g) return function(v) return g(v):sum() end end
    assert.is_true(same(nyx.func.grad(sum(f))(x), nyx.func.grad(sum(wrapped))(x)))
    local _, a = nyx.func.jvp(f, { x }, { nyx.ones(4) })
    local _, b = nyx.func.jvp(wrapped, { x }, { nyx.ones(4) })
    assert.is_true(same(a, b))
    assert.is_true(same(nyx.func.vmap(f)(x), nyx.func.vmap(wrapped)(x)))
  end)

  it("has gradients of any order", function()
    nyx.manual_seed(8)
    local f64 = { dtype = "float64", requires_grad = true }
    local w, x = nyx.randn({ 3, 3 }, f64), nyx.randn({ 2, 3 }, f64)
    local function values(wrap)
      local z = x * w[1] -- the argument depends on what the function uses as well
      local function f(a) return (a:matmul(w)):tanh(), a:sum() end
      local y, s
      if wrap then y, s = nyx.checkpoint(f, z) else y, s = f(z) end
      local first = nyx.grad((y * y):sum() + s * s, { w, x }, { create_graph = true })
      local sum = (first[1] * first[1]):sum() + first[2]:sin():sum()
      local second = nyx.grad(sum, { w, x }, { create_graph = true })
      local third = nyx.grad(second[1]:sum() + (second[2] * second[2]):sum(), { w, x })
      return { first[1], first[2], second[1], second[2], third[1], third[2] }
    end
    local plain, wrapped = values(false), values(true)
    for i = 1, 6 do
      local scale = plain[i]:abs():max():item()
      assert.is_true((plain[i] - wrapped[i]):abs():max():item() < 1e-12 * scale, "value " .. i)
    end
  end)

  it("runs again for each backward of a graph that is kept", function()
    local x = randn(3)
    local y = nyx.checkpoint(function(a) return a:exp() end, x):sum()
    y:backward { retain_graph = true }
    y:backward()
    assert.is_true(same((x:detach():exp() * 2), x.grad))
    assert.matches("freed by an earlier backward", message_of(y.backward, y))
  end)

  it("reaches any number of parameters", function()
    local leaves = {}
    for i = 1, 150 do leaves[i] = randn(2) end
    local function f(a)
      for i = 1, 150 do a = a * leaves[i]:sigmoid() + leaves[i] end
      return a
    end
    all_same(gradients(f(nyx.ones(2)):sum(), leaves),
      gradients(nyx.checkpoint(f, nyx.ones(2)):sum(), leaves))
    local some = nyx.grad(nyx.checkpoint(f, nyx.ones(2)):sum(), { leaves[3], leaves[149] })
    assert.is_true(same(nyx.grad(f(nyx.ones(2)):sum(), leaves[149]), some[2]))
    local g = nyx.grad(nyx.checkpoint(f, nyx.ones(2)):sum(), leaves[70], { create_graph = true })
    assert.is_true(nyx.grad(g:sum(), leaves[70]):isfinite():all():item())
  end)

  it("runs hooks once", function()
    local x, w = randn(2), randn(2)
    local calls = 0
    w:register_hook(function(g) calls = calls + 1 return g * 10 end)
    nyx.checkpoint(function(a) return a * w end, x):sum():backward()
    assert.are.equal(1, calls)
    assert.is_true(same(x:detach() * 10, w.grad))
  end)

  it("updates batch norm's statistics once", function()
    nyx.manual_seed(9)
    local a = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    local b = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    b:load_state_dict(a:state_dict())
    local x = nyx.randn(5, 3)
    all_same(gradients((a(x) ^ 3):sum(), a:parameters()),
      gradients((nyx.checkpoint(b, x) ^ 3):sum(), b:parameters()))
    for name, value in pairs(a:state_dict()) do
      assert.is_true(same(value, b:state_dict()[name]), name)
    end
  end)

  it("notices changes in place", function()
    local x, w = randn(2), randn(2)
    local y = nyx.checkpoint(function(a) return a * w end, x)
    nyx.no_grad(function() w:mul_(2) end)
    assert.matches("checkpoint", message_of(y.backward, y:sum()))
    y = nyx.checkpoint(function(a) return a * w end, x)
    nyx.no_grad(function() x:mul_(2) end)
    assert.matches("checkpoint", message_of(y.backward, y:sum()))
    assert.is_nil(w.grad)
  end)

  it("notices a function that does something else", function()
    local u, v = randn(2), randn(2)
    local calls = 0
    local function f(a)
      calls = calls + 1
      return a * (calls == 1 and u or v)
    end
    local y = nyx.checkpoint(f, nyx.ones(2)):sum()
    assert.matches("used other variables when it ran again", message_of(y.backward, y))
    calls = 0
    y = nyx.checkpoint(function(a)
      calls = calls + 1
      if calls == 1 then return a * u, a end
      return a * u
    end, nyx.ones(2)):sum()
    assert.matches("gave another number of results", message_of(y.backward, y))
    assert.is_nil(u.grad)
    assert.is_nil(v.grad)
  end)

  it("passes errors on, in both passes", function()
    local x = randn(2)
    local raised = {}
    local _, got = pcall(nyx.checkpoint, function() error(raised) end, x)
    assert.are.equal(raised, got)
    local calls = 0
    local y = nyx.checkpoint(function(a)
      calls = calls + 1
      if calls == 2 then error("second time") end
      return a * 2
    end, x):sum()
    local state = nyx.get_rng_state()
    assert.matches("second time", message_of(y.backward, y))
    assert.are.equal(state, nyx.get_rng_state())
    assert.is_false(require("nyx.checkpoint").recomputing())
    assert.is_nil(x.grad)
    assert.matches("'f' is number 3, expected a function", message_of(nyx.checkpoint, 3))
  end)

  it("outlives a scope", function()
    local x, w = randn(3), randn(3)
    local loss = nyx.scope(function()
      return nyx.checkpoint(function(a) return a * w end, x * 2):sum()
    end)
    loss:backward()
    assert.is_true(same(x:detach() * 2, w.grad))
  end)
end)

-- ------------------------------------------------------------------ Sequential

local function deep(layers, width)
  local net = nn.Sequential()
  for i = 1, layers do
    net:append(i % 2 == 1 and nn.Linear(width, width) or nn.Tanh())
  end
  return net
end

-- Bytes above what was there before, in the second of two steps.
local function peak_of(step)
  nyx.scope(step)
  for _ = 1, 4 do collectgarbage() end
  local before = nyx.memory().live
  nyx.memory_reset_peak()
  nyx.scope(step)
  return nyx.memory().peak - before
end

describe("nn.checkpoint_sequential", function()
  it("gives the same as the Sequential, for segments, budgets and plans", function()
    nyx.manual_seed(11)
    local net, x = deep(9, 6), randn(4, 6)
    net:append(nn.Flatten()):append(nn.Dropout(0.3)):append(nn.BatchNorm1d(6))
    local leaves = net:parameters()
    leaves[#leaves + 1] = x
    local layers = nn.measure_layers(net, x)
    local all = 0
    for _, layer in ipairs(layers) do all = all + layer.kept end
    local function run(options)
      nyx.manual_seed(12)
      local y = options and nn.checkpoint_sequential(net, x, options) or net(x)
      return gradients((y * y):sum(), leaves)
    end
    local expected = run()
    for n = 1, #net do all_same(expected, run { segments = n }) end
    for _, share in ipairs { 0.6, 0.8, 1, 3 } do
      all_same(expected, run { budget = all * share })
    end
    all_same(expected, run { plan = nn.plan_checkpoints(layers, all * 0.7) })
    assert.are.same({ 4, 6 }, nyx.no_grad(nn.checkpoint_sequential, net, x, { budget = 1 }).shape)
  end)

  it("keeps everything when there is room for it", function()
    local net, x = deep(6, 4), nyx.randn(3, 4)
    local plan = nn.plan_checkpoints(nn.measure_layers(net, x), 1e9)
    assert.are.same({ { first = 1, last = 6, checkpoint = false } }, plan.segments)
    assert.are.equal(0, plan.recomputed)
  end)

  it("measures without leaving traces", function()
    nyx.manual_seed(13)
    local net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Flatten())
    local state, mean = nyx.get_rng_state(), net[2].running_mean:clone()
    local layers = nn.measure_layers(net, nyx.randn(256, 4, { requires_grad = true }))
    local after = nyx.get_rng_state()
    nyx.set_rng_state(state)
    nyx.randn(256, 4)
    assert.are.equal(nyx.get_rng_state(), after)
    assert.is_true(same(mean, net[2].running_mean))
    assert.are.equal(0, net[2].num_batches_tracked:item())
    for i, layer in ipairs(layers) do
      assert.are.equal(256 * 8 * 4, layer.output)
      assert.is_true(layer.kept >= 0)
      if i < 4 then assert.is_true(layer.kept >= layer.output) end
    end
    assert.is_true(layers[3].kept >= 2 * layers[3].output) -- the mask as well
    assert.is_true(layers[4].kept < layers[4].output)      -- a view
    for _, parameter in ipairs(net:parameters()) do assert.is_nil(parameter.grad) end
  end)

  -- All ways to cut n layers, each segment checkpointed or each of its layers kept.
  local function exhaustive(layers, budget)
    local n, best, least = #layers, nil, math.huge
    local function flight(i)
      return layers[i].output + (layers[i - 1] or layers[i]).output
    end
    -- `spare`: of the last output, if the layer that gave it is kept and so is the next.
    local function extend(i, stored, spare, peak, recomputed)
      if i == n then
        least = math.min(least, peak)
        if peak <= budget then best = math.min(best or n, recomputed) end
        return
      end
      local after = stored - spare + layers[i + 1].kept
      extend(i + 1, after, layers[i + 1].spare, math.max(peak, after + flight(i + 1)), recomputed)
      local kept, moving = 0, 0
      for j = i + 1, n do
        kept = kept + layers[j].kept - (j > i + 1 and layers[j - 1].spare or 0)
        moving = math.max(moving, flight(j))
        extend(j, stored + layers[j].output, 0, math.max(peak, stored + kept + moving
          + layers[j].output), recomputed + j - i)
      end
    end
    extend(0, 0, 0, 0, 0)
    return best, least
  end

  it("finds the fewest recomputed layers, and the least peak", function()
    nyx.manual_seed(14)
    for _ = 1, 30 do
      local layers = {}
      for i = 1, nyx.randint(1, 9, { 1 }):item() do
        local output = nyx.randint(1, 20, { 1 }):item()
        layers[i] = { output = output, kept = output + nyx.randint(0, 30, { 1 }):item(),
          spare = i % 2 * output }
      end
      local _, least = exhaustive(layers, 0)
      for _, budget in ipairs { least, math.floor(least * 1.2), math.floor(least * 1.7) } do
        local plan = nn.plan_checkpoints(layers, budget)
        assert.are.equal(exhaustive(layers, budget), plan.recomputed)
        assert.is_true(plan.peak <= budget)
        local at = 1
        for _, segment in ipairs(plan.segments) do
          assert.are.equal(at, segment.first)
          at = segment.last + 1
        end
        assert.are.equal(#layers + 1, at)
      end
      assert.matches(("budget of %d bytes is too small: with the best segments the peak is %d;")
        :format(least - 1, least), message_of(nn.plan_checkpoints, layers, least - 1))
    end
  end)

  it("checks its arguments", function()
    local net, x = deep(4, 2), nyx.ones(1, 2)
    local run = nn.checkpoint_sequential
    assert.matches("'seq' is number 3", message_of(run, 3, x, { segments = 1 }))
    assert.matches("'x' is number 3", message_of(run, net, 3, { segments = 1 }))
    assert.matches("'segments' is nil", message_of(run, net, x))
    assert.matches("'segments' is 5, expected at most the 4 layers",
      message_of(run, net, x, { segments = 5 }))
    assert.matches("a budget of 1 bytes is too small", message_of(run, net, x, { budget = 1 }))
    assert.matches("unknown option 'parts'", message_of(run, net, x, { parts = 1 }))
    assert.matches("got 'segments' and 'budget', expected one of",
      message_of(run, net, x, { segments = 2, budget = 1e9 }))
    local function plan(...) return message_of(run, net, x, { plan = { segments = { ... } } }) end
    assert.matches("the segments of 'plan' end at layer 0, expected 4", plan())
    assert.matches("end at layer 3, expected 4", plan({ first = 1, last = 3, checkpoint = true }))
    assert.matches("'plan.segments%[2%]' is layers 4 to 4, expected the segments to cover layers "
      .. "1 to 4 in order; the next one is 3",
      plan({ first = 1, last = 2 }, { first = 4, last = 4 }))
    assert.matches("'plan.segments%[1%]' is layers 1 to 5", plan({ first = 1, last = 5 }))
    assert.matches("'plan.segments%[1%].last' is nil, expected an integer", plan({ first = 1 }))
    assert.matches("'plan.segments%[1%]' is number 3, expected a table", plan(3))
    assert.matches("'plan' is boolean false", message_of(run, net, x, { plan = false }))
    assert.matches("layers%[1%].kept", message_of(nn.plan_checkpoints, { {} }, 1))
  end)

  it("needs memory that grows with the square root of the depth", function()
    local x = nyx.randn(2048, 16)
    local function peaks(depth)
      local net = deep(depth, 16)
      local layers = nn.measure_layers(net, x)
      local _, message = pcall(nn.plan_checkpoints, layers, 0)
      local budget = tonumber(message:match("the peak is (%d+)"))
      local parameters = net:parameter_count() * 4 * 1.3 -- their gradients, in whole blocks
      local plain = peak_of(function() net:zero_grad() net(x):sum():backward() end)
      local equal = peak_of(function()
        net:zero_grad()
        nn.checkpoint_sequential(net, x, { segments = math.floor(math.sqrt(depth)) }):sum()
          :backward()
      end)
      local planned = peak_of(function()
        net:zero_grad()
        nn.checkpoint_sequential(net, x, { budget = budget }):sum():backward()
      end)
      -- and the result, which stays while the loss does
      assert.is_true(planned < 1.1 * budget + parameters + 2048 * 16 * 4)
      return plain, equal, planned
    end
    local plain50, equal50, planned50 = peaks(50)
    local plain200, equal200, planned200 = peaks(200)
    local output = 2048 * 16 * 4
    assert.is_true(plain50 > 25 * output and plain200 > 100 * output) -- every other is kept
    assert.is_true(equal200 < 2.5 * equal50) -- 4 times the depth
    assert.is_true(planned200 < 2.5 * planned50)
    assert.is_true(planned200 < equal200)
    assert.is_true(planned200 < 100 * output / 5)
  end)

  it("trains 200 layers under a budget as without, to the last bit", function()
    local inputs = nyx.randn(32, 8)
    local targets = inputs:sum(2, true):tanh()
    local function curve(budget)
      nyx.manual_seed(15)
      local net = nn.Sequential()
      for i = 1, 50 do
        local layer = nn.Linear(8, 8)
        nyx.no_grad(function() layer.weight:mul_(0.3):add_(nyx.eye(8)) end)
        net:append(layer):append(nn.Tanh()):append(nn.LayerNorm(8))
          :append(i % 5 == 0 and nn.Dropout(0.02) or nn.Identity())
      end
      assert.are.equal(200, #net)
      local head = nn.Linear(8, 1)
      local leaves = net:parameters()
      for _, p in ipairs(head:parameters()) do leaves[#leaves + 1] = p end
      local optimizer = nyx.optim.Adam(leaves, { lr = 1e-3 })
      local losses = {}
      for step = 1, 15 do
        optimizer:zero_grad()
        local h = budget and nn.checkpoint_sequential(net, inputs, { budget = budget })
          or net(inputs)
        local loss = ((head(h) - targets) ^ 2):mean()
        loss:backward()
        optimizer:step()
        losses[step] = loss:item()
      end
      return losses, leaves
    end
    local plain, a = curve()
    local budgeted, b = curve(60000)
    assert.are.same(plain, budgeted)
    all_same(a, b)
    assert.is_true(plain[15] < plain[1])
  end)
end)
