-- Automatic differentiation for long: tapes of very many ops, in a small C stack too, and
-- training whose memory stays flat, with hooks and transforms in every step. The longest
-- ones are tagged slow: busted --tags=slow spec/lua/long_grad_spec.lua.
-- Read next: gc_spec.lua, core/grad/backward.c.
local nyx = require "nyx"

local MIB = 1024 * 1024
local sanitized = os.getenv "ASAN_OPTIONS" ~= nil

-- Resident memory, bytes; nil where the system does not say, and under AddressSanitizer,
-- which keeps what is freed.
local function resident()
  local file = not sanitized and io.open "/proc/self/statm"
  if not file then return nil end
  local pages = file:read "*l":match "^%d+ (%d+)"
  file:close()
  return tonumber(pages) * 4096
end

local function live()
  collectgarbage()
  collectgarbage()
  return nyx.memory().live
end

-- The program that runs the specs: the lowest index of arg.
local function interpreter()
  local lowest = 0
  while arg[lowest - 1] do lowest = lowest - 1 end
  return arg[lowest]
end

-- Runs Lua in a process with a C stack of so many KiB; its output.
local function in_small_stack(kib, script)
  local name = os.tmpname()
  local file = assert(io.open(name, "w"))
  file:write(script)
  file:close()
  local pipe = assert(io.popen(("ulimit -s %d && '%s' '%s' 2>&1; echo \"exit $?\""):format(kib,
    interpreter(), name)))
  local output = pipe:read "*a"
  pipe:close()
  os.remove(name)
  return output
end

-- Chains of N ops: of one kind, of views and changes in place, of branches that meet again,
-- of a hook on every tensor, of nodes in Lua; differentiated, differentiated twice, and
-- dropped without.
local chains = [[
local nyx = require "nyx"
local N = %d
local w = nyx.ones(2, { requires_grad = true })
local function live()
  collectgarbage()
  collectgarbage()
  return nyx.memory().live
end
local before = live()

local function chain(n, step)
  local x = w * 1
  for i = 1, n do
    x = step(x)
    if i %% 10000 == 0 then collectgarbage() end
  end
  return x
end
local calls = 0
local Through = nyx.Function("through", {
  forward = function(_, x) return x * 1 end,
  backward = function(_, g) return g end,
})
local kinds = {
  { "ops", N, function(x) return x * 1 end },
  { "views in place", N / 20, function(x)
    local y = x:unsqueeze(1)
    y:add_(0)
    return y:squeeze(1)
  end },
  { "branches", N / 10, function(x) return (x * 0.25 + x * 0.75) end },
  { "hooks", N / 20, function(x)
    x:register_hook(function() calls = calls + 1 end)
    return x * 1
  end },
  { "functions", N / 50, function(x) return Through(x) end },
}
for _, kind in ipairs(kinds) do
  local name, n, step = kind[1], kind[2], kind[3]
  do
    local y = chain(n, step)
    y:sum():backward()
    local g = w.grad:totable()
    assert(math.abs(g[1] - 1) < 1e-3 and math.abs(g[2] - 1) < 1e-3, name .. ": " .. g[1])
    w.grad = nil
  end
  chain(n, step) -- dropped
  assert(live() - before < 8192, name .. " left " .. live() - before)
end
assert(calls == N / 20, calls)

-- Functions: what locals of a block held, the collector may still see.
local function tape_of_a_tape()
  local y = chain(N / 20, function(x) return x * 1 end)
  local g = nyx.grad((y * y):sum(), { w }, { create_graph = true })[1]
  local h = nyx.grad(g:sum(), { w })[1]:totable()
  assert(h[1] == 2 and h[2] == 2, h[1])
end
tape_of_a_tape()
assert(live() - before < 8192, live() - before)

local function tape_of_a_transform()
  local g = nyx.func.grad(function(x)
    for _ = 1, N / 20 do x = x * 1 end
    return x:sum()
  end)(nyx.ones(2))
  assert(g:sum():item() == 2)
  local _, d = nyx.func.jvp(function(x)
    for _ = 1, N / 20 do x = x * 1 end
    return x
  end, nyx.ones(2), nyx.ones(2))
  assert(d:sum():item() == 2)
  local per = nyx.func.vmap(nyx.func.grad(function(x)
    for _ = 1, N / 50 do x = x * 1 end
    return x:sum()
  end))(nyx.ones(3, 2))
  assert(per:sum():item() == 6)
end
tape_of_a_transform()
assert(live() - before < 8192, live() - before)
print "well"
]]

describe("a long tape", function()
  local stack = sanitized and 1024 or 256

  it("needs no stack, and leaves nothing", function()
    local count = sanitized and 20000 or 100000
    assert.matches("^well\nexit 0\n$", in_small_stack(stack, chains:format(count)))
  end)

  it("of a million ops needs no stack, and leaves nothing #slow", function()
    assert.matches("^well\nexit 0\n$", in_small_stack(stack, chains:format(1000000)))
  end)
end)

-- Trains a tiny model, and after each tenth of the steps looks at the memory.
local function train(steps)
  local nn, func = nyx.nn, nyx.func
  nyx.manual_seed(3)
  local net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
  local sgd = nyx.optim.SGD(net:parameters(), { lr = 1e-2, momentum = 0.9 })
  local x, y = nyx.randn(8, 3), nyx.randn(8, 1)
  local calls = 0
  net[1]:register_forward_hook(function() calls = calls + 1 end)
  net[1]:register_full_backward_hook(function() calls = calls + 1 end)
  local function loss(p, a, b)
    local out = func.functional_call(net, p, a:unsqueeze(1))
    return (out:squeeze(1) - b):square():sum()
  end
  local each = func.vmap(func.grad(loss), { in_dims = { false, 1, 1 } })
  local seen = {}
  local first, last
  for step = 1, steps do
    sgd:zero_grad()
    local out = net(x)
    out:register_hook(function(g)
      calls = calls + 1
      return g * 1
    end)
    local l = (out - y):square():mean()
    first = first or l:item()
    l:backward()
    sgd:step()
    if step % 20 == 0 then
      local p = {}
      for name, w in net:named_parameters() do p[name] = w:detach() end
      local g = each(p, x, y)
      assert.are.same({ 8, 4, 3 }, g["1.weight"].shape)
      func.hvp(function(a) return net(a):sum() end, x, x)
      func.jacobian(function(a) return net(a):tanh() end)(x[1])
      pcall(func.grad(function(a) return a:matmul(nyx.ones(7)):sum() end), x) -- fails inside
    end
    if step % (steps / 10) == 0 then
      seen[#seen + 1] = { live = live(), resident = resident() }
      last = l:item()
    end
  end
  assert.is_true(calls >= 3 * steps, calls)
  assert.is_true(last < first)
  for i = 3, #seen do
    assert.are.equal(seen[2].live, seen[i].live)
    if seen[i].resident then
      local grown = seen[i].resident - seen[2].resident
      assert.is_true(grown < 4 * MIB, ("grew by %d bytes"):format(grown))
    end
  end
end

describe("training", function()
  it("has flat memory", function() train(sanitized and 1000 or 5000) end)
  it("has flat memory over a hundred thousand steps #slow", function() train(100000) end)
end)
