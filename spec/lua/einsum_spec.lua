-- nyx.einsum, tensordot and inner: lua/nyx/einsum.lua. Random equations against PyTorch's are in
-- spec/peers/composites.py.
package.path = debug.getinfo(1, "S").source:match "^@(.*/)" .. "?.lua;" .. package.path
local nyx = require "nyx"
local checks = require "checks"

local t, leaf, fails, check = checks.tensor, checks.leaf, checks.fails, checks.gradients

-- The bytes beyond those of before that fn needs at most, the result's among them.
local function most(fn)
  collectgarbage()
  local before = nyx.memory().live
  nyx.memory_reset_peak()
  local y = fn()
  return nyx.memory().peak - before, y
end

describe("einsum", function()
  local m, v = t { { 1, 2 }, { 3, 4 } }, t { 5, 6 }

  it("of one operand", function()
    assert.are.equal(10, nyx.einsum("ij->", m):item())
    assert.are.same({ 3, 7 }, nyx.einsum("ij->i", m):totable())
    assert.are.same({ { 1, 3 }, { 2, 4 } }, nyx.einsum("ij->ji", m):totable())
    assert.are.same({ { 1, 3 }, { 2, 4 } }, nyx.einsum("ba", m):totable()) -- a before b
    assert.are.equal(5, nyx.einsum("ii", m):item())
    assert.are.same({ 1, 4 }, nyx.einsum("ii->i", m):totable())
    assert.are.same({ 1, 1, 1 }, nyx.einsum("iijj->ij", nyx.ones(2, 2, 3, 3))[1]:totable())
    assert.are.equal(7, nyx.einsum("->", t(7)):item())
  end)

  it("of two and more", function()
    assert.are.same({ { 7, 10 }, { 15, 22 } }, nyx.einsum("ij,jk->ik", m, m):totable())
    assert.are.same({ { 7, 15 }, { 10, 22 } }, nyx.einsum(" ij, jk -> ki ", m, m):totable())
    assert.are.same({ { 7, 10 }, { 15, 22 } }, nyx.einsum("ij,jk", m, m):totable())
    assert.are.equal(61, nyx.einsum("i,i", v, v):item())
    assert.are.same({ { 25, 30 }, { 30, 36 } }, nyx.einsum("i,j->ij", v, v):totable())
    assert.are.same({ { 1, 4 }, { 9, 16 } }, nyx.einsum("ij,ij->ij", m, m):totable())
    assert.are.same({ 5, 24 }, nyx.einsum("ii,i->i", m, v):totable())
    assert.are.equal(v:matmul(m):matmul(v):item(), nyx.einsum("i,ij,j->", v, m, v):item())
    assert.are.same({ { 70, 100 }, { 150, 220 } }, nyx.einsum("ij,,jk->ik", m, t(10), m):totable())
  end)

  it("with ... and size 1", function()
    local x, y = nyx.randn(2, 1, 3, 4), nyx.randn(5, 4, 6)
    assert.is_true(nyx.einsum("...ij,...jk->...ik", x, y):allclose(x:matmul(y), 1e-4, 1e-5))
    assert.are.same({ 3, 2, 5, 6 }, nyx.einsum("...ij,...jk->i...k", x, y).shape)
    assert.are.same({ 2, 5, 3, 6 }, nyx.einsum("...ij,...jk", x, y).shape)
    assert.are.same({ 3, 6 }, nyx.einsum("...ij,...jk->ik", x, y).shape)
    assert.are.same({ 1, 4 }, nyx.einsum("...i->i...", nyx.zeros(4, 1)).shape)
    assert.are.same({ 22, 33 }, nyx.einsum("i,i->i", t { 11 }, t { 2, 3 }):totable())
    assert.are.equal(55, nyx.einsum("i,i->", t { 11 }, t { 2, 3 }):item())
  end)

  it("of empty tensors and of integers", function()
    local none = nyx.einsum("ij,jk->ik", nyx.zeros(1, 0), nyx.zeros(0, 2))
    assert.are.same({ { 0, 0 } }, none:totable())
    assert.are.same({ 0, 2 }, nyx.einsum("ij,jk->ik", nyx.zeros(0, 3), nyx.zeros(3, 2)).shape)
    local i = t({ { 1, 2 }, { 3, 4 } }, "int32")
    assert.are.same({ { 7, 10 }, { 15, 22 } }, nyx.einsum("ij,jk->ik", i, i):totable())
  end)

  it("copies nothing that can be a view", function()
    local q, k = nyx.randn(2, 50, 4, 64), nyx.randn(2, 50, 4, 64)
    local used, y = most(function() return nyx.einsum("bqhd,bkhd->bhqk", q, k) end)
    assert.are.same({ 2, 4, 50, 50 }, y.shape)
    assert.is_true(used < y:numel() * 4 + 60000, used) -- q alone is 102 KB
    local x = nyx.randn(30, 30, 30)
    used = most(function() return nyx.einsum("ikj->jki", x) end)
    assert.is_true(used < 10000, used)
    used, y = most(function() return nyx.einsum("abc,bcd->ad", x, x) end)
    assert.is_true(used < y:numel() * 4 + 60000, used) -- x is 108 KB
    local small, large = nyx.randn(8, 8, 2), nyx.randn(1000, 8, 8)
    used, y = most(function() return nyx.einsum("bcd,acb->da", small, large) end)
    assert.is_true(used < 60000, used) -- one must be copied: the small one; the other is 256 KB
    assert.is_true(y:is_contiguous()) -- small's dimension is rows, as it comes first
    assert.is_true(nyx.einsum("bcd,acb->ad", small, large):is_contiguous())
  end)

  it("contracts first what makes least", function()
    local a, b, c = nyx.randn(1000, 2), nyx.randn(2, 1000), nyx.randn(1000, 2)
    local used = most(function() return nyx.einsum("ij,jk,kl->il", a, b, c) end)
    assert.is_true(used < 1000000, used) -- the first two alone: 4 MB
    a, c = nyx.randn(500, 500), nyx.randn(500, 1) -- equally little: what takes least work
    used = most(function() return nyx.einsum("ij,jk,kl->il", a, a, c) end)
    assert.is_true(used < 500000, used) -- the first two alone: 1 MB
    local x = nyx.randn(1000)
    used = most(function() return nyx.einsum("i,j,i->j", x, x, x) end)
    assert.is_true(used < 1000000, used)
  end)

  it("has gradients of any order, forward mode and vmap", function()
    check(function(x, y) return nyx.einsum("bij,bjk->bik", x, y) end, leaf(2, 3, 2), leaf(2, 2, 3))
    check(function(x, y, z) return nyx.einsum("ij,jk,il->kl", x, y, z) end, leaf(2, 3), leaf(3, 2),
      leaf(2, 2))
    check(function(x) return nyx.einsum("...ii->...i", x) end, leaf(2, 3, 3))
    check(function(x, y) return nyx.einsum("i,i->", x, y) end, leaf(1), leaf(3))
    local x, y = nyx.randn(5, 2, 3), nyx.randn(5, 3)
    local f = function(a, b) return nyx.einsum("ij,j->i", a, b) end
    assert.is_true(nyx.func.vmap(f)(x, y):allclose(nyx.einsum("nij,nj->ni", x, y), 1e-4, 1e-5))
  end)

  it("goes the same way again", function()
    local ways = {
      ["ij,jk->ki"] = function(a, b) return a:matmul(b):t() end,
      ["ij,ij->"] = function(a, b) return (a * b):sum() end,
      ["ii,ij->j"] = function(a, b) return a:diagonal():unsqueeze(2):mul(b):sum(1) end,
      ["ij,kl->ik"] = function(a, b) return a:sum(2):outer(b:sum(2)) end,
    }
    for equation, way in pairs(ways) do
      local before = nyx.randn(3, 3)
      nyx.einsum(equation, before, before) -- one tensor twice, then two
      for _, dtype in ipairs { "float32", "float64" } do
        local a, b = nyx.randn(3, 3, { dtype = dtype }), nyx.randn(3, 3, { dtype = dtype })
        for _, pair in ipairs { { a, b }, { b, a }, { a:t(), b }, { a:t(), b:t() } } do
          local x, y = pair[1], pair[2]
          local found = nyx.einsum(equation, x, y)
          assert.equal(dtype, found.dtype)
          assert.is_true(found:allclose(way(x, y), 1e-4, 1e-5), equation)
        end
      end
      for _ = 1, 2 do
        check(function(x, y) return nyx.einsum(equation, x, y) end, leaf(3, 3), leaf(3, 3))
      end
    end
    local x, numbers = nyx.randn(2, 3), nyx.ones(2, 3, { dtype = "int64" })
    for _ = 1, 2 do
      assert.is_true(nyx.einsum("ij->ij", x):shares(x))
      assert.are.same({ 2, 2, 2 }, nyx.einsum("ij->j", numbers):totable())
      assert.is_true(nyx.einsum("ij->j", x):allclose(x:sum(1)))
    end
  end)
  it("keeps no tensors", function()
    local function live()
      collectgarbage()
      collectgarbage()
      return nyx.memory().live
    end
    local x = nyx.randn(30, 40)
    local before = live()
    for _ = 1, 2 do nyx.einsum("ij,kj,kl->il", x, x, x) end
    assert.equal(before, live())
    pcall(nyx.einsum, "ij,kj,kj,il->", x, x, x, x:t()) -- refused after the first steps
    assert.equal(before, live())
  end)
  it("tells apart what operands look like", function()
    local line, row = nyx.ones(8):slice(1, 1, 8, 2), nyx.ones(1, 5) -- strides 2; sizes 1 and 5
    assert.are.same({}, nyx.einsum("...,...->", line, nyx.ones(4)).shape)
    assert.are.same({ 5, 4 }, nyx.einsum("i,j->ji", line, nyx.ones(5)).shape)
    assert.are.same({ 1, 5 }, nyx.einsum("...,...", nyx.ones(5), row).shape)
    assert.are.same({ 5 }, nyx.einsum("...,...", nyx.ones(5), nyx.ones(5)).shape)
  end)

  it("says what is wrong", function()
    local x = nyx.zeros(3, 4)
    fails(function() nyx.einsum(3, x) end, "equation", "number 3", "string")
    fails(function() nyx.einsum("ij,jk", x) end, "'ij,jk'", "2 tensors", "1 given")
    fails(function() nyx.einsum("ij", 3) end, "operand 1", "number 3")
    fails(function() nyx.einsum("ij,jk", x, x) end, "letter 'j'", "size 4 in operand 1",
      "size 3 in operand 2", "equal or 1")
    fails(function() nyx.einsum("...i,...i", x, nyx.zeros(2, 4)) end, "dimension -1 of '...'",
      "size 3 in operand 1", "size 2 in operand 2")
    fails(function() nyx.einsum("ii", x) end, "letter 'i'", "operand 1", "3 and 4")
    fails(function() nyx.einsum("ijk->i", x) end, "operand 1", "(3x4)", "3 dimensions")
    fails(function() nyx.einsum("ijk...->i", x) end, "operand 1", "at least 3 dimensions")
    fails(function() nyx.einsum("i->i", x) end, "operand 1", "expected 1 dimension,")
    fails(function() nyx.einsum("ij->ik", x) end, "'k'", "no operand")
    fails(function() nyx.einsum("ij->ii", x) end, "'i' twice")
    fails(function() nyx.einsum("i1->i", x) end, "'1'", "expected letters")
    fails(function() nyx.einsum("ij->i->j", x) end, "'-'", "one '->'")
    fails(function() nyx.einsum("...i...", x) end, "'...' twice")
    local many = nyx.ones(2, 2, 2, 2, 2)
    fails(function() nyx.einsum("abcde,fghij->abcdefghij", many, many) end, "10 dimensions", "8")
  end)
end)

describe("tensordot", function()
  local x, y = nyx.randn(2, 3, 4), nyx.randn(3, 4, 5)
  it("sums over the last and the first dimensions, or pairs", function()
    local expected = x:reshape(2, 12):matmul(y:reshape(12, 5))
    assert.is_true(x:tensordot(y):allclose(expected, 1e-4, 1e-5))
    assert.is_true(x:tensordot(y, { { 3, -2 }, { 2, 1 } }):allclose(expected, 1e-4, 1e-5))
    assert.are.same({ 2, 3, 4, 3, 4, 5 }, x:tensordot(y, 0).shape)
    assert.are.same({ 2, 3, 3, 5 }, nyx.tensordot(x, y, { { 3 }, { 2 } }).shape)
    check(function(a, b) return a:tensordot(b, 1) end, leaf(2, 3), leaf(3, 2))
  end)
  it("says what is wrong", function()
    fails(function() x:tensordot(y, 1) end, "tensordot", "(2x3x4)", "(3x4x5)", "4 and 3")
    fails(function() x:tensordot(y, 4) end, "tensordot", "'dims' is 4")
    fails(function() x:tensordot(y, { { 1 }, {} }) end, "tensordot", "1 dimensions of x and 0 of y")
    fails(function() x:tensordot(y, { { 4 }, { 1 } }) end, "tensordot", "dimension 4 of 'x'")
    fails(function() x:tensordot(y, { { 0 }, { 1 } }) end, "tensordot", "dimension 0 of 'x'")
    fails(function() x:tensordot(y, { { 1, 1 }, { 1, 2 } }) end, "tensordot", "twice")
  end)
end)

describe("inner", function()
  it("sums over the last dimensions", function()
    assert.are.equal(11, t({ 1, 2 }):inner(t { 3, 4 }):item())
    assert.are.same({ 2, 3, 5, 6 }, nyx.inner(nyx.zeros(2, 3, 4), nyx.zeros(5, 6, 4)).shape)
    assert.are.same({ 2, 4 }, t(2):inner(t { 1, 2 }):totable())
    fails(function() nyx.zeros(2):inner(nyx.zeros(3)) end, "inner", "(2)", "(3)")
  end)
end)
