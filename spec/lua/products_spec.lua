-- Products of vectors and matrices: lua/nyx/products.lua. Random calls against PyTorch's are in
-- spec/peers/composites.py.
package.path = debug.getinfo(1, "S").source:match "^@(.*/)" .. "?.lua;" .. package.path
local nyx = require "nyx"
local checks = require "checks"

local t, leaf, fails, check = checks.tensor, checks.leaf, checks.fails, checks.gradients

describe("products", function()
  local m, v = t { { 1, 2 }, { 3, 4 } }, t { 5, 6 }
  it("of vectors and matrices", function()
    assert.are.equal(61, v:dot(v):item())
    assert.are.equal(61, nyx.vdot(v, v):item())
    assert.are.same({ 17, 39 }, m:mv(v):totable())
    assert.are.same({ { 7, 10 }, { 15, 22 } }, nyx.mm(m, m):totable())
    assert.are.same({ { 5, 10 }, { 6, 12 } }, v:outer(t { 1, 2 }):totable())
    assert.are.same({ { 5, 10 }, { 6, 12 } }, nyx.ger(v, t { 1, 2 }):totable())
  end)
  it("check the dimensions", function()
    fails(function() m:dot(v) end, "dot", "(2x2)", "1 dimension")
    fails(function() m:vdot(v) end, "vdot", "(2x2)", "1 dimension")
    fails(function() m:mm(v) end, "mm", "(2)", "2 dimensions")
    fails(function() m:mm(3) end, "mm", "number 3", "tensor")
  end)
end)

describe("products and a sum", function()
  local m, v = t { { 1, 2 }, { 3, 4 } }, t { 5, 6 }
  local b = nyx.stack { m, m }
  it("with factors", function()
    assert.are.same({ { 16, 24 }, { 36, 52 } },
      m:addmm(m, m, { beta = 2, alpha = 2 }):totable())
    assert.are.same({ 22, 45 }, v:addmv(m, v):totable())
    assert.are.same({ { 51, 62 }, { 63, 76 } }, m:addr(v, v, { alpha = 2 }):totable())
    assert.are.same({ { 15, 22 }, { 33, 48 } }, m:addbmm(b, b):totable())
    assert.are.same({ { { 8, 12 }, { 18, 26 } }, { { 8, 12 }, { 18, 26 } } },
      m:baddbmm(b, b):totable())
  end)
  it("leave x out where beta is 0", function()
    local nan = nyx.full({ 2, 2 }, 0 / 0, { dtype = "float64" })
    assert.are.same({ { 7, 10 }, { 15, 22 } }, nan:addmm(m, m, { beta = 0 }):totable())
    assert.are.same({ 17, 39 }, nan[1]:addmv(m, v, { beta = 0 }):totable())
  end)
  it("pass gradients", function()
    check(function(x, y, z) return x:addmm(y, z, { beta = 2, alpha = 3 }) end, leaf(4), leaf(3, 2),
      leaf(2, 4))
    check(function(x, y, z) return x:addmv(y, z) end, leaf(3), leaf(3, 2), leaf(2))
    check(function(x, y, z) return x:addr(y, z) end, leaf(3, 2), leaf(3), leaf(2))
    check(function(x, y, z) return x:baddbmm(y, z) end, leaf(2, 3, 4), leaf(2, 3, 2), leaf(2, 2, 4))
    check(function(x, y, z) return x:addbmm(y, z) end, leaf(3, 4), leaf(2, 3, 2), leaf(2, 2, 4))
  end)
  it("say what is wrong", function()
    fails(function() nyx.zeros(3, 3):addmm(m, m) end, "addmm", "'x'", "(3x3)", "(2x2)")
    fails(function() nyx.zeros(2, 1, 2):addmm(m, m) end, "addmm", "'x'", "(2x1x2)")
    fails(function() m:addmm(v, m) end, "addmm", "'a'", "2 dimensions")
    fails(function() m:addmm(m, m, { gamma = 1 }) end, "addmm", "gamma", "alpha")
    fails(function() v:addmv(m, m) end, "addmv", "'b'", "1 dimension")
    fails(function() m:addr(m, v) end, "addr", "'a'")
    fails(function() m:baddbmm(m, b) end, "baddbmm", "'a'", "3 dimensions")
    fails(function() m:addbmm(b, b:narrow(1, 1, 1)) end, "addbmm", "(2x2x2)", "(1x2x2)")
  end)
end)

describe("matmul_add", function()
  it("is what addmm and others are made of", function()
    local x, a, b = nyx.randn(5), nyx.randn(2, 3, 4), nyx.randn(2, 4, 5)
    local product = a:matmul(b)
    assert.is_true(x:matmul_add(a, b):allclose(x + product, 1e-5, 1e-5))
    assert.is_true(x:matmul_add(a, b, { beta = 0.5, alpha = -2 })
      :allclose(x * 0.5 - product * 2, 1e-5, 1e-5))
    local out = nyx.zeros(2, 3, 5)
    nyx.matmul_add(x, a, b, { out = out })
    assert.is_true(out:allclose(x + product, 1e-5, 1e-5))
    assert.is_true(nyx.ones(2, 3):addmm(nyx.zeros(2, 1) / 0, nyx.zeros(1, 3)):isnan():all():item())
    check(function(...) return nyx.matmul_add(...) * 3 end, leaf(3, 1), leaf(2, 3, 2), leaf(2, 4))
    check(function(u, v, w) return nyx.matmul_add(u, v, w, { beta = 2, alpha = 3 }) end, leaf(4),
      leaf(3, 2), leaf(2, 4))
  end)
  it("says what is wrong", function()
    local m = nyx.zeros(2, 2)
    fails(function() m:matmul_add(nyx.zeros(2), m) end, "matmul_add", "a", "(2)", "2 dimensions")
    fails(function() m:matmul_add(m, nyx.zeros(3, 2)) end, "matmul_add", "(2x2) @ (3x2)")
    fails(function() nyx.zeros(3):matmul_add(m, m) end, "matmul_add", "(3)", "(2x2)")
    fails(function() nyx.zeros(4, 2, 2):matmul_add(m, m) end, "matmul_add", "(4x2x2)")
  end)
end)

describe("multi_dot", function()
  it("multiplies in the best order", function()
    local a, b, c = nyx.randn(1000, 2), nyx.randn(2, 1000), nyx.randn(1000, 2)
    collectgarbage()
    local before = nyx.memory().live
    nyx.memory_reset_peak()
    local y = nyx.multi_dot { a, b, c }
    assert.is_true(nyx.memory().peak - before < 1000 * 1000) -- a @ b alone: 4 MB
    assert.is_true(y:allclose(a:matmul(b):matmul(c), 1e-3, 1e-3))
  end)
  it("takes vectors at the ends", function()
    local v, m = t { 1, 2 }, t { { 1, 2 }, { 3, 4 } }
    assert.are.same({ 7, 10 }, nyx.multi_dot({ v, m }):totable())
    assert.are.same({ 5, 11 }, nyx.multi_dot({ m, v }):totable())
    assert.are.equal(27, nyx.multi_dot({ v, m, v }):item())
    assert.are.same({ 1, 2 }, nyx.multi_dot({ t { { 1 } }, t { { 1, 2 } } })[1]:totable())
  end)
  it("passes gradients", function()
    check(function(...) return nyx.multi_dot { ... } end, leaf(3), leaf(3, 1), leaf(1, 4),
      leaf(4, 2))
  end)
  it("says what is wrong", function()
    local m = nyx.zeros(2, 3)
    fails(function() nyx.multi_dot { m } end, "multi_dot", "1 matrices", "at least 2")
    fails(function() nyx.multi_dot { m, m } end, "multi_dot", "matrices[1]", "(2x3)", "matrices[2]")
    fails(function() nyx.multi_dot { m, nyx.zeros(3), m } end, "matrices[2]", "2 dimensions")
    fails(function() nyx.multi_dot(3) end, "multi_dot", "matrices", "table")
  end)
end)

describe("kron", function()
  it("puts y in the place of every element of x", function()
    assert.are.same({ { 1, 1, 2, 2 } }, t({ { 1, 2 } }):kron(t { { 1, 1 } }):totable())
    assert.are.same({ { 1, 0, 2, 0 }, { 0, 1, 0, 2 } },
      t({ 1, 2 }):kron(t { { 1, 0 }, { 0, 1 } }):totable())
    assert.are.equal(6, t(2):kron(t(3)):item())
    check(nyx.kron, leaf(2, 3), leaf(2))
    check(nyx.kron, leaf(2, 3), leaf(3, 2))
    for _, k in ipairs { 1, 9 } do -- small, and large enough to have rows of its own
      local x, y = nyx.randn(3, k, 2 * k), nyx.randn(2, 4 * k)
      local each = nyx.einsum("aij,kl->aikjl", x, y):reshape(3, 2 * k, 8 * k * k)
      assert.is_true(x:kron(y):allclose(each))
    end
    for _, size in ipairs { 3, 15, 16, 40 } do
      local a, b = nyx.randn(2, 20, 30), nyx.randn(5, size)
      local long = nyx.einsum("aij,kl->aikjl", a, b):reshape(2, 100, 30 * size)
      assert.is_true(a:kron(b):allclose(long))
      assert.is_true(a:transpose(2, 3):kron(b):allclose(
        nyx.einsum("aji,kl->aikjl", a, b):reshape(2, 150, 20 * size)))
    end
    for _, across in ipairs { 1, 2, 3, 4, 5, 8, 16, 17, 40 } do -- matrices, by rows
      for _, dtype in ipairs { "float32", "float64", "float16", "int32" } do
        local a = nyx.randint(-4, 5, { 7, 3 }):to(dtype)
        local b = nyx.randint(-4, 5, { across, 2 }):to(dtype):t()
        local each = (a:reshape(7, 1, 3, 1) * b:reshape(1, 2, 1, across)):reshape(14, 3 * across)
        assert.is_true(a:kron(b):equal(each))
        assert.equal(dtype, a:kron(b).dtype)
      end
    end
    for _, dtype in ipairs { "float32", "float64", "int32" } do -- outer of as many
      local a, b = nyx.arange(300, { dtype = dtype }), nyx.arange(200, { dtype = dtype })
      assert.is_true(a:outer(b):equal(a:unsqueeze(2) * b))
    end
    local many, one = nyx.randn(300, 90), nyx.randn(2, 5) -- rows enough for threads
    assert.is_true(many:kron(one)[{ 599, { 446, 450 } }]:allclose(one[1] * many[300][90]))
    assert.is_true(one:kron(many):equal(
      (one:reshape(2, 1, 5, 1) * many:reshape(1, 300, 1, 90)):reshape(600, 450)))
    local each = nyx.func.vmap(nyx.kron)(nyx.ones(4, 2, 3), nyx.randn(4, 3, 2))
    assert.are.same({ 4, 6, 6 }, each.shape)
    fails(function() nyx.zeros(1, 1, 1, 1, 1):kron(t { 1 }) end, "kron", "5 dimensions")
  end)
end)

describe("cross", function()
  it("is the cross product", function()
    assert.are.same({ 0, 0, 1 }, t({ 1, 0, 0 }):cross(t { 0, 1, 0 }):totable())
    assert.are.same({ { 0, 0, 1 }, { 1, 0, 0 } },
      t({ { 1, 0, 0 }, { 0, 1, 0 } }):cross(t { { 0, 1, 0 }, { 0, 0, 1 } }, -1):totable())
    assert.are.same({ 2, 3, 4 }, nyx.zeros(2, 3, 4):cross(nyx.zeros(3, 1)).shape)
    check(nyx.cross, leaf(2, 3), leaf(2, 3))
    check(function(x, y) return x:cross(y, 1) end, leaf(3, 3), leaf(3, 3))
    local x, y = nyx.randn(3, 5, 3), nyx.randn(3, 5, 3)
    for _, dim in ipairs { 1, 3 } do -- the kernel's and, of broadcast tensors, that of planes
      local found, half = x:cross(y, dim), x:half():cross(y:half(), dim)
      assert.is_true(found:allclose(x:cross(y:expand(2, 3, 5, 3), dim - 4)[2], 1e-5, 1e-5))
      assert.is_true(found:allclose(x:double():cross(y, dim):float(), 1e-5, 1e-5))
      assert.is_true(found:allclose(half:float(), 1e-2, 2e-2))
    end
    assert.are.same({ -3, 6, -3 }, nyx.tensor({ 1, 2, 3 }, { dtype = "int32" })
      :cross(nyx.tensor({ 4, 5, 6 }, { dtype = "int32" })):totable())
    for _, shape in ipairs { { 2, 3, 30001 }, { 40001, 3 }, { 7000, 3, 4 } } do -- shared
      local a, b = nyx.randn(shape), nyx.randn(shape)
      local planes = a:cross(b:unsqueeze(1), 1 - #shape)[1]
      assert.is_true(a:cross(b, 2):allclose(planes, 1e-5, 1e-5))
    end
    local crosses = function(a, b) return a:cross(b) end
    assert.is_true(nyx.func.vmap(crosses)(x, y):allclose(x:cross(y, 3), 1e-5, 1e-6))
    fails(function() nyx.zeros(2):cross(nyx.zeros(2)) end, "cross", "(2)", "size 3")
    fails(function() nyx.zeros(2, 3):cross(nyx.zeros(2, 3), 1) end, "cross", "dimension 1")
  end)
end)

describe("cdist", function()
  it("measures every pair of rows", function()
    local x, y = t { { 0, 0 }, { 3, 4 } }, t { { 0, 0 }, { 6, 8 }, { 3, 0 } }
    assert.are.same({ { 0, 10, 3 }, { 5, 5, 4 } }, x:cdist(y):totable())
    assert.are.same({ { 0, 14, 3 }, { 7, 7, 4 } }, x:cdist(y, 1):totable())
    assert.are.same({ { 0, 8, 3 }, { 4, 4, 4 } }, x:cdist(y, math.huge):totable())
    assert.are.same({ 5, 2, 0 }, nyx.zeros(5, 2, 3):cdist(nyx.zeros(0, 3)).shape)
    assert.are.same({ 5, 0, 2 }, nyx.zeros(0, 3):cdist(nyx.zeros(5, 2, 3)).shape)
  end)
  it("takes differences of some rows at a time", function()
    local x, y = nyx.rand(300, 7), nyx.rand(400, 7) -- 840,000 differences
    local all = (x:unsqueeze(2) - y:unsqueeze(1)):norm(3, -1)
    assert.is_true(x:cdist(y, 3):allclose(all, 1e-5, 1e-6))
  end)
  -- Odd numbers of rows, more columns and rows than are worked on at a time, and ties.
  it("has the gradients of norms of all differences", function()
    for _, sizes in ipairs { { 5, 3, 1 }, { 7, 1100, 6 }, { 2, 33, 9 } } do
      for _, p in ipairs { 1, 2, math.huge } do
        local n, m, width = sizes[1], sizes[2], sizes[3]
        local x = nyx.randint(-3, 3, { n, width }):double():requires_grad_()
        local y = (nyx.randint(-3, 3, { m, width }):double() + 0.25):requires_grad_()
        local weight = nyx.randn({ n, m }, { dtype = "float64" })
        local got = nyx.grad((x:cdist(y, p) * weight):sum(), { x, y })
        local all = (x:unsqueeze(2) - y:unsqueeze(1)):norm(p, -1)
        local expected = nyx.grad((all * weight):sum(), { x, y })
        assert.is_true(x:cdist(y, p):allclose(all, 1e-12, 1e-12))
        for i = 1, 2 do assert.is_true(got[i]:allclose(expected[i], 1e-10, 1e-10), p) end
      end
    end
  end)
  it("multiplies many rows of many columns", function()
    local x, y = nyx.rand({ 2, 30, 64 }, { dtype = "float64" }), nyx.rand({ 9, 64 },
      { dtype = "float64" })
    local all = (x:unsqueeze(-2) - y:unsqueeze(-3)):norm(2, -1)
    assert.is_true(x:cdist(y):allclose(all, 1e-10, 1e-10))
    check(nyx.cdist, leaf(2, 48), leaf(26, 48))
  end)
  it("has gradients, 0 where two rows are equal", function()
    check(nyx.cdist, leaf(3, 2), leaf(4, 2))
    check(nyx.cdist, leaf(2, 8), leaf(26, 8))
    local x = nyx.rand(26, 8):requires_grad_()
    x:cdist(x:detach():clone()):sum():backward()
    assert.is_true(x.grad:isfinite():all():item())
    local y = nyx.ones(2, 3):requires_grad_()
    y:cdist(nyx.ones(1, 3)):sum():backward()
    assert.are.equal(0, y.grad:abs():sum():item())
  end)
  it("says what is wrong", function()
    fails(function() nyx.zeros(3):cdist(nyx.zeros(3)) end, "cdist", "2 dimensions")
    fails(function() nyx.zeros(2, 3):cdist(nyx.zeros(2, 4)) end, "cdist", "(2x3)", "(2x4)")
    fails(function() nyx.zeros(2, 3):cdist(nyx.zeros(2, 3), -1) end, "cdist", "'p'")
  end)
end)
