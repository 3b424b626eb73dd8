-- nyx.arena: named buffers in one block of memory. spec/c/arena_test.c looks closer at what
-- is shared and what is not, and at threads.
local nyx = require "nyx"

local MIB = 1024 * 1024

local function message(fn, ...)
  local ok, text = pcall(fn, ...)
  assert.is_false(ok)
  return text
end

local function live()
  collectgarbage()
  collectgarbage()
  return nyx.memory().live
end

describe("an arena", function()
  it("gives the same buffer for the same name", function()
    local arena = nyx.arena(4096)
    local x = arena:buffer("position", { 2, 3 })
    assert.equal("float32", x.dtype)
    assert.same({ 2, 3 }, x.shape)
    assert.equal(0, x:abs():sum():item())
    x:fill_(2)
    assert.equal(x, arena:buffer("position", { 2, 3 }, { dtype = "float32" }))
    assert.equal(12, arena:buffer("position"):sum():item())
    assert.equal("int8", arena:buffer("flags", { 5 }, { dtype = "int8" }).dtype)
    assert.equal(0, arena:buffer("one", {}).ndim)
    assert.is_true(arena:has "one")
    assert.is_false(arena:has "two")
    assert.equal(3, #arena)
  end)

  it("lays buffers out on multiples of 64 bytes", function()
    local arena = nyx.arena(1000)
    local x = arena:buffer("x", { 17 })
    local y = arena:buffer("y", { 3 }, { dtype = "uint8" })
    arena:buffer("z", { 1 }, { dtype = "float64" })
    assert.same({ bytes = 1024, used = 256, free = 768 }, arena:memory())
    local list = arena:list()
    assert.same({ name = "x", dtype = "float32", shape = { 17 }, offset = 0, bytes = 68,
      in_use = true }, list[1])
    assert.same({ name = "y", dtype = "uint8", shape = { 3 }, offset = 128, bytes = 3,
      in_use = true }, list[2])
    assert.same({ 192, "z" }, { list[3].offset, list[3].name })
    assert.equal("nyx.Arena of 1024 bytes: 256 used, 768 free, 3 buffers\n" ..
      "  x: float32 (17), 68 bytes at 0\n  y: uint8 (3), 3 bytes at 128\n" ..
      "  z: float64 (1), 8 bytes at 192", tostring(arena))
    assert.is_false(x:shares(y))
  end)

  it("keeps changes of one buffer from what was saved of another", function()
    local arena = nyx.arena(4096)
    local x = arena:buffer("x", { 3 })
    local y = arena:buffer("y", { 3 })
    x:fill_(3):requires_grad_()
    local loss = (x * x):sum()
    y:fill_(1)
    loss:backward()
    assert.same({ 6, 6, 6 }, x.grad:totable())
    loss = (x * x):sum()
    nyx.no_grad(function() x:fill_(1) end)
    assert.is_truthy(message(loss.backward, loss):find("in place", 1, true))
  end)

  it("takes the results of ops", function()
    local arena = nyx.arena(4096)
    local y = arena:buffer("y", { 2, 2 })
    local a = nyx.ones(2, 2)
    assert.equal(y, a:matmul(a, { out = y }))
    assert.equal(8, arena:buffer("y"):sum():item())
  end)

  it("says what does not fit", function()
    local arena = nyx.arena(256)
    local x = arena:buffer("x", { 16 })
    local function has(text, ...)
      local got = message(...)
      assert.is_truthy(got:find(text, 1, true), got)
      assert.is_truthy(got:find("arena_spec.lua:", 1, true), got)
    end
    local buffer = arena.buffer
    has("buffer: buffer 'y', float32 of shape (7x7), needs 196 bytes, the arena has 192 of 256",
      function() buffer(arena, "y", { 7, 7 }) end)
    has("buffer 'x' is float32 of shape (16), expected float32 of shape (4x4)",
      function() buffer(arena, "x", { 4, 4 }) end)
    has("no buffer 'y'; it has x", function() buffer(arena, "y") end)
    has("the name of the buffer '' has 0 bytes", function() buffer(arena, "", { 1 }) end)
    has("has a byte 0 within", function() buffer(arena, "a\0b", { 1 }) end)
    has("table of sizes expected, got number 3", function() buffer(arena, "y", 3) end)
    has("not a table of at most 8 sizes", function() buffer(arena, "y", { 1.5 }) end)
    has("no dtype 'float'", function() buffer(arena, "y", { 1 }, { dtype = "float" }) end)
    has("unknown option 'device'", function() buffer(arena, "y", { 1 }, { device = "cpu" }) end)
    has("arena expected, got number 3", function() buffer(3, "y") end)
    has("'bytes' is 0, expected 1 or more", function() nyx.arena(0) end)
    has("integer expected, got string", function() nyx.arena("a") end)
    has("not enough memory", function() nyx.arena(2 ^ 60) end)
    assert.equal(1, #arena)
    assert.equal(16, x:numel())
  end)

  it("is used again when nobody holds a buffer", function()
    local arena = nyx.arena(4096)
    local x = arena:buffer("x", { 1000 }):fill_(5)
    assert.is_truthy(message(arena.reset, arena):find("buffer 'x' of the arena is still in use",
      1, true))
    local row = x:narrow(1, 3, 2)
    x:release()
    assert.is_truthy(message(arena.reset, arena):find("still in use", 1, true))
    assert.equal(10, row:sum():item())
    row = nil -- luacheck: ignore
    assert.equal(arena, arena:reset()) -- what Lua has dropped is collected
    assert.equal(0, #arena)
    assert.equal(0, arena:buffer("y", { 900 }):sum():item())
  end)

  it("is kept by its buffers", function()
    local before = live()
    local arena = nyx.arena(MIB)
    local x = arena:buffer("x", { 1000 })
    arena:release()
    assert.equal("nyx.Arena (released)", tostring(arena))
    assert.is_truthy(message(arena.buffer, arena, "x"):find("the arena was released", 1, true))
    arena:release()
    arena = nil -- luacheck: ignore
    assert.is_true(live() - before >= MIB)
    assert.equal(3000, x:fill_(3):sum():item())
    x = nil -- luacheck: ignore
    assert.is_true(live() - before < MIB)
  end)

  it("is felt by the collector", function()
    local before, most = live(), 0
    for _ = 1, 200 do
      nyx.arena(16 * MIB):buffer("x", { 10 }):fill_(1)
      most = math.max(most, nyx.memory().live - before)
    end
    assert.is_true(most < 200 * MIB, "so many bytes: " .. most)
  end)

  it("lets scopes release what they took out, not what is in it", function()
    local arena = nyx.arena(4096)
    local inside
    nyx.scope(function() inside = nyx.keep(arena:buffer("x", { 3 })) end)
    nyx.scope(function() arena:buffer("x"):fill_(4) end)
    assert.equal(12, inside:sum():item())
    assert.equal(12, arena:buffer("x"):sum():item())
  end)

  it("loses nothing where memory is short", function()
    local arena = nyx.arena(4096)
    local before = live()
    for n = 0, 40 do
      nyx.memory_fail_after(n)
      local ok = pcall(function()
        nyx.arena(100):buffer("x", { 3 })
        return tostring(arena) .. tostring(arena:buffer("y", { 2 }))
      end)
      nyx.memory_fail_after(-1)
      arena:reset()
      assert.equal(before, live())
      if ok then return end
    end
    error "it never had enough"
  end)
end)
