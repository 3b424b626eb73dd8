-- Memory: the collector feels tensors, scopes give back what is not used, running out of
-- memory collects first, and nothing is lost.
local nyx = require "nyx"

local MIB = 1024 * 1024

-- Resident memory of this process, bytes; nil where the system does not say, and under
-- AddressSanitizer, which keeps what is freed.
local function resident()
  local file = not os.getenv("ASAN_OPTIONS") and io.open("/proc/self/statm")
  if not file then return nil end
  local pages = file:read("*l"):match("^%d+ (%d+)")
  file:close()
  return tonumber(pages) * 4096
end

local function live()
  collectgarbage()
  collectgarbage()
  return nyx.memory().live
end

describe("the collector", function()
  it("keeps a loop of large temporaries small", function()
    local x = nyx.ones(MIB / 4)
    for i = 1, 3000 do
      local _ = x + i
      if i % 100 == 0 then
        assert.is_true(nyx.memory().live < 120 * MIB)
        assert.is_true((resident() or 0) < 200 * MIB, "resident: " .. (resident() or 0))
      end
    end
  end)

  it("frees large temporaries soon where the state is generational", function()
    if _VERSION ~= "Lua 5.4" then return pending "LuaJIT has no young collections" end
    local mode = collectgarbage "generational"
    local x, before = nyx.ones(MIB), live()
    local most = 0
    for _ = 1, 50 do
      local _ = x + 1
      most = math.max(most, nyx.memory().live - before)
    end
    collectgarbage(mode)
    assert.is_true(most < 30 * MIB, "so many bytes: " .. most)
  end)

  it("does not look at everything for each of the largest temporaries", function()
    if _VERSION ~= "Lua 5.4" then return pending "LuaJIT has no young collections" end
    local mode, before = collectgarbage "generational", live()
    local all = 0 -- full collections: only they find that an old object is not used
    local old = { setmetatable({}, { __gc = function() all = all + 1 end }) }
    collectgarbage()
    table.remove(old)
    local most = 0
    for _ = 1, 20 do
      local _ = nyx.empty(20 * MIB)
      most = math.max(most, nyx.memory().live - before)
    end
    local found = all
    collectgarbage(mode)
    assert.are.equal(0, found)
    assert.is_true(most < 200 * MIB, "so many bytes: " .. most)
  end)

  it("keeps gradients that were looked at small", function()
    local x = nyx.ones(MIB / 4, { requires_grad = true })
    for i = 1, 600 do
      x:sum():backward()
      assert.are.equal(1, x.grad[1]:item())
      if i % 2 == 0 then x.grad = nil else x:zero_grad() end
      if i % 100 == 0 then assert.is_true(nyx.memory().live < 120 * MIB) end
    end
  end)

  it("keeps a loop of small temporaries small", function()
    collectgarbage()
    local x, before, live_before = nyx.ones(16), resident(), nyx.memory().live
    for i = 1, 300000 do
      local _ = x * x
      if i % 1000 == 0 then assert.is_true(nyx.memory().live - live_before < 80 * MIB) end
    end
    if before then
      assert.is_true(resident() - before < 100 * MIB, "grew: " .. resident() - before)
    end
  end)

  it("does not keep graphs", function()
    local w = nyx.ones(1000, { requires_grad = true })
    local before = live()
    for _ = 1, 2000 do
      local loss = ((w * 2):exp() + 1):log():sum()
      loss:backward()
      w.grad = nil
    end
    assert.is_true(live() - before < 100 * 1000, "grew: " .. live() - before)
  end)

  it("does not keep graphs of ops in place", function()
    local w = nyx.ones(1000, { requires_grad = true })
    local before = live()
    for _ = 1, 100 do
      local x = w * 2
      x:abs_() -- the gradient needs the input, which x is no longer
      x:mul_(x:detach())
      pcall(x.backward, x:sum())
      w.grad = nil
    end
    assert.are.equal(0, live() - before)
  end)

  it("frees graphs of any depth", function()
    local w = nyx.ones(2, { requires_grad = true })
    local before = live()
    do
      local x = w
      for _ = 1, 200000 do x = x * 1 end
      x:sum():backward()
      assert.are.same({ 1, 1 }, w.grad:totable())
      w.grad, x = nil, w
      for _ = 1, 200000 do x = x * 1 end
      x:release()
    end
    assert.is_true(live() - before < 4096)
  end)

  it("runs under finalizers that clear gradients", function()
    local function finalizer(fn)
      if newproxy then -- luacheck: ignore 143 113
        getmetatable(newproxy(true)).__gc = fn -- luacheck: ignore 143 113
      else
        setmetatable({}, { __gc = fn })
      end
    end
    collectgarbage("setpause", 0)
    local w = nyx.ones(100, { requires_grad = true })
    for _ = 1, 200 do
      (w * 2):sum():backward()
      finalizer(function() w.grad = nil end)
      for _ = 1, 30 do
        local grad = w.grad
        if not grad then break end
        assert.are.equal(200, grad:sum():item())
      end
      w.grad = nil
    end
    collectgarbage("setpause", 200)
  end)

  local modes = { { "setpause", 0 }, { "setstepmul", 100000 } }
  if not newproxy then modes[#modes + 1] = { "generational" } end -- luacheck: ignore 143 113
  for _, mode in ipairs(modes) do
    it("may be as eager as it can: " .. mode[1], function()
      local previous = collectgarbage(mode[1], mode[2])
      local base = live()
      local net = nyx.nn.Sequential(nyx.nn.Linear(8, 16), nyx.nn.ReLU(), nyx.nn.Linear(16, 4))
      local optimizer = nyx.optim.Adam(net:parameters(), { lr = 0.01 })
      local criterion = nyx.nn.CrossEntropyLoss()
      for i = 1, 60 do
        local loss = criterion(net(nyx.randn(32, 8)), nyx.randint(1, 5, { 32 }))
        optimizer:zero_grad()
        loss:backward()
        optimizer:step()
        local steps = coroutine.wrap(function()
          for k = 1, 3 do coroutine.yield(nyx.ones(5) * k) end
        end)
        assert.are.equal(15, steps():sum():item() + steps():sum():item())
        assert.is_false(pcall(nyx.scope, function()
          local a = nyx.ones(100)
          nyx.scope(function()
            local b = a + 1
            if i % 2 == 0 then error("inner") end
            return b
          end)
          error("outer")
        end))
        local x = nyx.randn(4, 4)
        assert.are.equal(4, #{ tostring(x), x:totable(), x:tobytes(), x[{ { 1, 3 } }] })
      end
      if mode[1] == "generational" then
        collectgarbage("incremental")
      else
        collectgarbage(mode[1], previous)
      end
      net, optimizer = nil, nil -- luacheck: ignore 311
      assert.is_true(live() - base < 65536, "grew: " .. live() - base)
    end)
  end

  it("runs under finalizers that make tensors", function()
    if not newproxy and not setmetatable({}, { __gc = function() end }) then return end
    local made = 0
    local meta = { __gc = function()
      local t = nyx.ones(1000) + 1
      made = made + t:numel()
    end }
    for _ = 1, 200 do
      if newproxy then -- luacheck: ignore 143 113
        getmetatable(newproxy(true)).__gc = meta.__gc -- luacheck: ignore 143 113
      else
        setmetatable({}, meta)
      end
      local _ = nyx.ones(MIB)
    end
    collectgarbage()
    assert.is_true(made > 0)
  end)
end)

describe("finalizers that release tensors in use", function()
  it("do no harm", function()
    local gc = function(release)
      if newproxy then -- luacheck: ignore 143 113
        getmetatable(newproxy(true)).__gc = release -- luacheck: ignore 143 113
      else
        setmetatable({}, { __gc = release })
      end
    end
    for _ = 1, 200 do
      local x, y = nyx.ones(50), nyx.ones(50)
      gc(function() x:release() y:release() end)
      for _ = 1, 50 do
        if not pcall(function() return x + y end) then break end
      end
    end
  end)
end)

describe("release", function()
  it("gives memory back at once", function()
    local before = live()
    local x = nyx.zeros(MIB)
    assert.is_true(nyx.memory().live - before >= 4 * MIB)
    x:release()
    assert.is_true(nyx.memory().live - before < MIB)
  end)

  it("leaves views alone", function()
    local x = nyx.ones(4)
    local y = x[{ { 1, 2 } }]
    x:release()
    assert.are.same({ 1, 1 }, y:totable())
  end)

  local close = load and load([[
    local nyx, live = ...
    local kept
    do
      local x <close> = nyx.zeros(1024, 1024)
      kept = x
    end
    return kept
  ]])
  if close then
    it("happens at the end of a block in Lua 5.4", function()
      local before = live()
      local kept = close(nyx)
      assert.is_true(nyx.memory().live - before < MIB)
      assert.are.equal("nyx.Tensor (released)", tostring(kept))
    end)
  end
end)

describe("nyx.scope", function()
  it("releases what does not escape", function()
    local before = live()
    local inner
    local result = nyx.scope(function(n)
      inner = nyx.ones(MIB)
      for _ = 1, n do inner = inner + 1 end
      return inner:sum()
    end, 5)
    assert.are.equal(6 * MIB, result:item())
    assert.are.equal("nyx.Tensor (released)", tostring(inner))
    assert.is_true(nyx.memory().live - before < MIB)
  end)

  it("spares results in tables and closures, and views", function()
    local list, fn = nyx.scope(function()
      local a, b, c = nyx.ones(2), nyx.ones(3), nyx.ones(4)
      local t = { a, deep = { b } }
      t.self = t
      return t, function() return c end
    end)
    assert.are.equal(2, list[1]:numel())
    assert.are.equal(3, list.deep[1]:numel())
    assert.are.equal(4, fn():numel())
    local view = nyx.scope(function() return (nyx.ones(4) * 2)[{ { 1, 2 } }] end)
    assert.are.same({ 2, 2 }, view:totable())
  end)

  it("spares gradients and what was kept", function()
    local w = nyx.ones(3, { requires_grad = true })
    local state = {}
    nyx.scope(function()
      (w * 2):sum():backward()
      state.buffer = nyx.keep(nyx.zeros(3))
    end)
    assert.are.same({ 2, 2, 2 }, w.grad:totable())
    assert.are.same({ 0, 0, 0 }, state.buffer:totable())
  end)

  it("spares what an optimiser remembers", function()
    local w = nyx.ones(3, { requires_grad = true })
    local optimizer = nyx.optim.Adam({ w }, { lr = 0.1 })
    for _ = 1, 3 do
      nyx.scope(function()
        optimizer:zero_grad();
        (w * w):sum():backward()
        optimizer:step()
      end)
    end
    assert.is_true(math.abs(w[1]:item() - 0.7) < 0.01)
  end)

  it("nests", function()
    local inner_result, outer_temporary
    local outer = nyx.scope(function()
      outer_temporary = nyx.scope(function()
        inner_result = nyx.ones(2)
        return inner_result + 1
      end)
      return outer_temporary + 1
    end)
    assert.are.same({ 3, 3 }, outer:totable())
    assert.are.equal("nyx.Tensor (released)", tostring(inner_result))
    assert.are.equal("nyx.Tensor (released)", tostring(outer_temporary))
  end)

  it("releases after an error, which passes", function()
    local inside
    local problem = {}
    local ok, err = pcall(nyx.scope, function()
      inside = nyx.ones(5)
      error(problem)
    end)
    assert.is_false(ok)
    assert.are.equal(problem, err)
    assert.are.equal("nyx.Tensor (released)", tostring(inside))
    local after = nyx.ones(2)
    assert.are.same({ 1, 1 }, after:totable())
  end)

  it("ends with the error of a coroutine", function()
    local inside
    local routine = coroutine.create(function()
      nyx.scope(function()
        inside = nyx.ones(2)
        nyx.no_grad(function() error("inner") end)
      end)
    end)
    local ok, message = coroutine.resume(routine)
    assert.is_false(ok)
    assert.matches("inner", message)
    assert.is_true(nyx.is_grad_enabled())
    assert.are.equal("nyx.Tensor (released)", tostring(inside))
    local after = nyx.ones(2)
    routine = nil -- luacheck: ignore 311
    collectgarbage()
    collectgarbage()
    assert.are.same({ 1, 1 }, after:totable())
  end)

  it("survives collections inside", function()
    local result = nyx.scope(function()
      local sum = nyx.zeros(10)
      for i = 1, 100 do
        sum = sum + nyx.full({ 10 }, i)
        if i % 10 == 0 then collectgarbage() end
      end
      return sum
    end)
    assert.are.equal(5050, result[1]:item())
  end)
end)

describe("memory that runs out", function()
  after_each(function() nyx.memory_limit(0) end)

  it("is collected before an op fails", function()
    collectgarbage()
    collectgarbage()
    nyx.memory_limit(nyx.memory().live + 24 * MIB)
    local x = nyx.ones(MIB)
    for i = 1, 50 do x = x + i end -- 4 MiB each; at most six fit
    assert.are.equal(1 + 50 * 51 / 2, x[1]:item())
  end)

  it("is an error that says how much", function()
    nyx.memory_limit(nyx.memory().live + 8 * MIB)
    local ok, message = pcall(function()
      local _ = nyx.zeros(64 * MIB)
    end)
    assert.is_false(ok)
    assert.is_truthy(message:find("memory", 1, true))
    assert.is_truthy(message:find("gc_spec", 1, true))
    nyx.memory_limit(0)
    assert.are.equal(2, nyx.ones(2):numel())
  end)

  it("at any allocation leaves tensors as they were", function()
    local x = nyx.tensor({ { 1, 2 }, { 3, 4 } })
    local calls = {
      function() return x + 1 end,
      function() return x:matmul(x) end,
      function() return x:sum(1) end,
      function() return x[{ {}, 1 }] end,
      function() return x:clone():add_(1) end,
      function() return nyx.tensor({ 1, 2 }) end,
      function() return nyx.cat({ x, x }) end,
      function() return tostring(x) end,
      function() return x:totable() end,
    }
    local start = live()
    for _, call in ipairs(calls) do
      for n = 0, 12 do
        nyx.memory_fail_after(n)
        pcall(call)
      end
      nyx.memory_fail_after(-1)
      assert.has_no_error(call)
    end
    assert.are.same({ { 1, 2 }, { 3, 4 } }, x:totable())
    assert.is_true(live() - start < 4096, "leaked: " .. live() - start)
  end)
end)
