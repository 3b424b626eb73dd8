-- nyx.linalg: what comes of factors multiplied again, of every size that takes another way,
-- gradients, and what is refused. That ops agree with each other in layouts, dtypes and
-- transforms is spec/op's. Read next: lua/nyx/linalg.lua.
local nyx = require "nyx"

local linalg = nyx.linalg

local function random(...)
  return nyx.randn({ ... }, { dtype = "float64" })
end

local function eye(n) return nyx.eye(n, { dtype = "float64" }) end

local function turned(x) return x:transpose(-1, -2) end

-- Symmetric and positive-definite.
local function definite(...)
  local x = random(...)
  return x:matmul(turned(x)) / x:size(-1) + eye(x:size(-1))
end

local function close(a, b, tolerance)
  assert.same(b.shape, a.shape)
  if a:numel() == 0 then return end
  local difference = (a - b):abs():max():item()
  if not (difference <= (tolerance or 1e-10)) then -- luacheck: ignore 581
    error(("differ by %g"):format(difference), 2)
  end
end

-- Small, the largest that is not divided, divided with something left, batches of few and many.
local squares = { { 1, 1 }, { 5, 5 }, { 255, 255 }, { 300, 300 }, { 513, 513 }, { 3, 4, 4 },
  { 2, 260, 260 }, { 2, 9, 20, 20 }, { 2, 0, 3, 3 }, { 3, 0, 0 }, { 17, 256, 256 } }

describe("linalg", function()
  before_each(function() nyx.manual_seed(5) end)

  it("multiplies to a matrix: cholesky", function()
    for _, shape in ipairs(squares) do
      local a = definite((table.unpack or unpack)(shape)) -- luacheck: ignore
      local l, u = a:cholesky(), linalg.cholesky(a, { upper = true })
      close(l:matmul(turned(l)), a)
      close(turned(u):matmul(u), a)
      close(l:tril(), l, 0)
      close(u:triu(), u, 0)
    end
  end)

  it("reads one triangle: cholesky", function()
    for _, n in ipairs { 4, 300 } do
      local a = definite(n, n)
      local junk = nyx.full({ n, n }, 0 / 0, { dtype = "float64" })
      close(nyx.where(nyx.ones(n, n):tril(), a, junk):cholesky(), a:cholesky(), 0)
      close(nyx.where(nyx.ones(n, n):triu(), a, junk):cholesky { upper = true },
        a:cholesky { upper = true }, 0)
    end
  end)

  it("multiplies to a matrix: lu", function()
    local shapes = { { 5, 9 }, { 9, 5 }, { 300, 700 }, { 700, 300 }, { 4, 3, 2 }, { 0, 3 },
      { 3, 0 } }
    for _, list in ipairs { squares, shapes } do
      for _, shape in ipairs(list) do
        local a = random((table.unpack or unpack)(shape)) -- luacheck: ignore
        local p, l, u = linalg.lu(a)
        close(p:matmul(l):matmul(u), a)
        if l:numel() > 0 then assert(l:abs():max():item() <= 1) end -- the largest was chosen
        local lu, pivots = a:lu_factor()
        close(lu:narrow(-1, 1, l:size(-1)):tril(-1), l:tril(-1), 0)
        close(a:pivot_rows(pivots):pivot_rows(pivots, { inverse = true }), a, 0)
        close(p:matmul(a:pivot_rows(pivots)), a, 0)
      end
    end
  end)

  it("multiplies to a matrix: qr", function()
    for _, shape in ipairs { { 5, 5 }, { 70, 40 }, { 40, 70 }, { 3, 4, 2 }, { 2, 2, 2, 5 },
      { 4, 0 }, { 0, 4 }, { 2, 3, 0 }, { 0, 3, 2 }, { 256, 256 }, { 330, 330 }, { 700, 300 },
      { 300, 700 }, { 2, 260, 270 }, { 2, 270, 260 } } do
      local a = random((table.unpack or unpack)(shape)) -- luacheck: ignore
      local m = a:size(-2)
      for _, mode in ipairs { "reduced", "complete" } do
        local q, r = linalg.qr(a, { mode = mode })
        local k = mode == "complete" and m or math.min(m, a:size(-1))
        assert.same({ m, k, k, a:size(-1) }, { q:size(-2), q:size(-1), r:size(-2), r:size(-1) })
        close(q:matmul(r), a)
        close(turned(q):matmul(q), eye(k):expand_as(turned(q):matmul(q)))
        close(r:triu(), r, 0)
      end
      local none, r = a:qr "r"
      assert.equal(0, none:numel())
      close(r, select(2, a:qr()))
    end
  end)

  it("solves", function()
    for _, shape in ipairs(squares) do
      local a = random((table.unpack or unpack)(shape)) -- luacheck: ignore
      local n = a:size(-1)
      local x = random(n, 3)
      local b = a:matmul(x)
      close(linalg.solve(a, b), x:expand_as(b), 1e-6)
      close(linalg.solve(a, turned(b), { left = false }):matmul(a), turned(b), 1e-6)
      local lu, pivots = a:lu_factor()
      close(linalg.lu_solve(lu, pivots, b), x:expand_as(b), 1e-6)
      close(turned(a):matmul(b:lu_solve(lu, pivots, { adjoint = true })), b, 1e-6)
      close(linalg.lu_solve(lu, pivots, turned(b), { left = false }):matmul(a), turned(b), 1e-6)
      close(turned(b):lu_solve(lu, pivots, { left = false, adjoint = true }):matmul(turned(a)),
        turned(b), 1e-6)
      close(linalg.inv(a):matmul(a), eye(n):expand_as(a), 1e-6)
      local l = (a:matmul(turned(a)) + eye(n)):cholesky()
      close(l:matmul(turned(l)):matmul(b:cholesky_solve(l)), b, 1e-6)
      close(turned(l):cholesky_inverse { upper = true }, l:cholesky_inverse(), 1e-12)
      close(l:cholesky_inverse(), linalg.inv(l:matmul(turned(l))), 1e-6)
    end
  end)

  it("solves for vectors, and for one matrix and many sides", function()
    local a, b = random(4, 3, 3), random(4, 3)
    close(linalg.solve(a, b):unsqueeze(-1), linalg.solve(a, b:unsqueeze(-1)), 0)
    close(linalg.solve(a[1], b[1]), linalg.solve(a, b)[1], 1e-13)
    close(turned(a):matmul(linalg.solve(a, b, { left = false }):unsqueeze(-1)), b:unsqueeze(-1))
    local many = random(5, 1, 3, 200)
    close(a:matmul(linalg.solve(a, many)), many:expand(5, 4, 3, 200))
    close(a[1]:matmul(linalg.solve(a[1], many)), many)
  end)

  it("solves triangles, from either side and in any layout", function()
    for _, n in ipairs { 1, 6, 200 } do
      local a, b = definite(n, n) + random(n, n) / n, random(2, n, 150)
      local wide = random(n, 2 * n)
      wide:narrow(2, 1, n):copy_(a)
      local apart = random(n, 2 * n)
      apart:slice(2, 1, -1, 2):copy_(a)
      for _, t in ipairs { a, a:t():contiguous():t(), wide:narrow(2, 1, n),
        apart:slice(2, 1, -1, 2) } do
        for _, upper in ipairs { true, false } do
          for _, unit in ipairs { true, false } do
            local full = upper and a:triu(unit and 1 or 0) or a:tril(unit and -1 or 0)
            if unit then full = full + eye(n) end
            local size = unit and full / n or full -- or solutions grow without bound
            local from = unit and t / n or t
            if unit then size = size - eye(n) / n + eye(n) end
            local x = linalg.solve_triangular(from, b, upper, { unitriangular = unit })
            close(size:matmul(x), b, 1e-9)
            x = linalg.solve_triangular(from, turned(b), upper,
              { left = false, unitriangular = unit })
            close(x:matmul(size), turned(b), 1e-9)
          end
        end
      end
    end
  end)

  it("gives determinants", function()
    close(linalg.det(nyx.tensor { { 1, 2 }, { 3, 4 } }), nyx.tensor(-2), 1e-6)
    local a = random(3, 4, 4)
    local sign, log = a:slogdet()
    close(sign * log:exp(), a:det(), 1e-12)
    close(a:det(), a:select(1, 1):det():expand(3) * (a:det() / a[1]:det()), 1e-12)
    close(a:matmul(a):det(), a:det() ^ 2)
    assert.equal(1, random(0, 0):det():item())
    local negative = nyx.tensor { { 0, 1 }, { 1, 0 } }
    assert(negative:logdet():item() ~= negative:logdet():item()) -- nan
    assert.equal(0, nyx.eye(3):logdet():item())
    sign, log = nyx.zeros(3, 3):slogdet()
    assert.equal(0, sign:item())
    assert.equal(-math.huge, log:item())
    sign, log = random(700, 700):slogdet() -- beyond the greatest number
    assert.equal(1, math.abs(sign:item()))
    assert(log:item() > 1000 and log:item() < math.huge)
  end)

  it("gives powers", function()
    local a = random(2, 3, 3)
    close(a:matrix_power(5), a:matmul(a):matmul(a):matmul(a):matmul(a))
    close(linalg.matrix_power(a, -2):matmul(a):matmul(a), eye(3):expand(2, 3, 3), 1e-8)
    close(a:matrix_power(0), eye(3):expand(2, 3, 3), 0)
    local once = a:matrix_power(1)
    close(once, a, 0)
    once:zero_()
    assert.is_true(a:abs():sum():item() > 0)
  end)

  it("solves least squares", function()
    local a, b = random(2, 7, 3), random(2, 7, 4)
    local x, residuals = linalg.lstsq(a, b)
    close(turned(a):matmul(a:matmul(x)), turned(a):matmul(b))
    close(residuals, ((a:matmul(x) - b) ^ 2):sum(-2))
    local v, one = linalg.lstsq(a[1], b[1]:select(2, 1))
    close(v, x[1]:select(2, 1))
    close(one, residuals[1][1])
    local wide, side = random(3, 7), random(3, 2)
    local shortest, none = linalg.lstsq(wide, side)
    assert.equal(0, none:numel())
    close(wide:matmul(shortest), side)
    local q = turned(wide):qr()
    close(q:matmul(turned(q):matmul(shortest)), shortest) -- in the span of its rows
  end)

  it("solves least squares of large matrices, and of one for many sides", function()
    for _, shape in ipairs { { 300, 20 }, { 300, 260 }, { 300, 300 }, { 129, 128 } } do
      local a = random(shape[1], shape[2])
      for _, k in ipairs { 1, 3, 140 } do
        local b = random(shape[1], k)
        local x, sums, r = nyx.lstsq(a, b)
        close(turned(a):matmul(a:matmul(x)), turned(a):matmul(b), 1e-9)
        close(sums, ((a:matmul(x) - b) ^ 2):sum(-2), 1e-9)
        close(turned(r):matmul(r), turned(a):matmul(a), 1e-9)
        close(r:tril(-1), r * 0, 0)
        close(nyx.lstsq(a:float(), b:float()):double(), x, 2e-2)
      end
    end
    local a, b = random(7, 3), random(2, 4, 7, 5)
    local x, sums, r = nyx.lstsq(a, b)
    assert.same({ 2, 4, 3, 3 }, r.shape)
    for i = 1, 2 do
      for j = 1, 4 do
        local one, left, same = nyx.lstsq(a, b[i][j])
        close(x[i][j], one, 1e-13)
        close(sums[i][j], left, 1e-13)
        close(r[i][j], same, 0)
      end
    end
    local c = random(2, 1, 7, 3)
    close((nyx.lstsq(c, b))[2][3], (nyx.lstsq(c[2][1], b[2][3])), 1e-13)
    local none, left = nyx.lstsq(random(4, 0), b[1][1]:narrow(1, 1, 4))
    assert.same({ 0, 5 }, none.shape)
    close(left, (b[1][1]:narrow(1, 1, 4) ^ 2):sum(1), 1e-13)
  end)

  it("has gradients of first and second order", function()
    local function check(f, ...)
      local inputs = { ... }
      for i, t in ipairs(inputs) do inputs[i] = t:requires_grad_(true) end
      nyx.gradcheck(f, inputs, { atol = 1e-6, rtol = 1e-6, forward = true })
      nyx.gradgradcheck(f, inputs, { eps = 1e-5, atol = 5e-5, rtol = 5e-5, fast = true })
    end
    local positions = nyx.tensor({ 2, 3, 1 }, { dtype = "int64" })
    local a, b = random(2, 3, 3) / 4 + eye(3):index_select(positions, 1), random(2, 3, 2)
    check(linalg.solve, a, b)
    check(linalg.solve, a[1]:clone(), b)
    check(linalg.solve, a, b[1]:clone())
    check(linalg.inv, a)
    check(function(x) return x:det() end, a)
    check(function(x) return (select(2, x:slogdet())) end, a)
    check(function(x) return select(2, linalg.lu(x)) end, a)
    check(function(x) return linalg.qr(x) end, a)
    check(function(x, y) return (linalg.lstsq(x, y)) end, random(5, 3), random(5, 2))
    check(function(x, y) return select(2, linalg.lstsq(x, y)) end, random(5, 3), random(5, 2))
    check(nyx.lstsq, random(5, 3), random(5, 2))
    check(nyx.lstsq, random(5, 3), random(2, 5, 1))
    check(function(x, y) return linalg.lstsq(x, y) end, random(3, 3), random(3))
    check(function(x) return (nyx.determinant(x)) end, a)
    check(function(x, y) return (linalg.lstsq(x, y)) end, random(3, 5), random(3, 2))
    check(function(x) return x:matrix_power(-2) end, a)
    local symmetric = definite(3, 3)
    check(function(x) return ((x + x:t()) / 2):cholesky() end, symmetric)
    check(function(x, y) return y:cholesky_solve(((x + x:t()) / 2):cholesky()) end, symmetric,
      random(3, 2))
    check(function(x) return x:cholesky_inverse() end, symmetric:cholesky())
    local lu, pivots = a:detach():lu_factor()
    for _, options in ipairs { {}, { adjoint = true } } do
      check(function(x, y) return linalg.lu_solve(x, pivots, y, options) end, lu:clone(), b)
    end
  end)

  it("has gradients that large matrices share", function()
    local a = definite(300, 300):requires_grad_(true)
    nyx.gradcheck(function(x)
      local s = (x + x:t()) / 2
      return s:cholesky():sum() + linalg.solve(s, nyx.ones(300, 1, { dtype = "float64" })):sum()
        + select(2, s:slogdet())
    end, { a }, { atol = 1e-5, rtol = 1e-5, fast = true })
  end)

  it("differentiates the determinant of a singular matrix", function()
    -- The adjugate: of rank 2 a matrix of cofactors, of less zero.
    local a = nyx.tensor({ { 1, 2, 3 }, { 4, 5, 6 }, { 5, 7, 9 } }, { dtype = "float64" })
    a:requires_grad_(true)
    close(nyx.grad(a:det(), a), nyx.tensor({ { 3, -6, 3 }, { 3, -6, 3 }, { -3, 6, -3 } },
      { dtype = "float64" }), 1e-9)
    local zero = nyx.zeros({ 1, 1 }, { dtype = "float64", requires_grad = true })
    assert.equal(1, nyx.grad(zero:det(), zero):item())
    local flat = nyx.ones({ 3, 3 }, { dtype = "float64", requires_grad = true })
    close(nyx.grad(flat:det(), flat), nyx.zeros({ 3, 3 }, { dtype = "float64" }), 1e-12)
  end)

  it("maps over batches", function()
    local a, b = random(4, 3, 3), random(4, 3)
    close(nyx.func.vmap(linalg.solve)(a, b), linalg.solve(a, b), 1e-12)
    close(nyx.func.vmap(linalg.solve, { in_dims = { false, 1 } })(a[1], b),
      turned(linalg.solve(a[1], turned(b))), 1e-12)
    close(nyx.func.vmap(linalg.det)(a), a:det(), 1e-12)
    close(nyx.func.vmap(function(x) return (linalg.lstsq(x, b[1])) end)(a),
      linalg.solve(a, b[1]:expand(4, 3)), 1e-9)
  end)

  local function refuses(pattern, f, ...)
    local ok, message = pcall(f, ...)
    assert.is_false(ok)
    assert.matches(pattern, message, 1, true)
  end

  it("names the matrix that has no factor or solution", function()
    local a = definite(2, 3, 4, 4)
    a[{ 2, 1, 3, 3 }] = -1
    refuses("matrix (2, 1) of the batch is not positive-definite: its leading minor of order 3",
      nyx.cholesky, a)
    refuses("leading minor of order 3", nyx.cholesky, a, { upper = true })
    for _, n in ipairs { 20, 400 } do
      local one = definite(n, n)
      one[{ n - 1, n - 1 }] = -1
      refuses(("the matrix is not positive-definite: its leading minor of order %d"):format(n - 1),
        nyx.cholesky, one)
      one[{ n - 1, n - 1 }] = 0 / 0
      refuses(("order %d is not positive"):format(n - 1), nyx.cholesky, one)
      local flat = random(n, n)
      flat[{ {}, n - 2 }] = 0
      refuses(("the matrix is singular: element %d of the diagonal of the U of its LU")
        :format(n - 2), linalg.solve, flat, eye(n))
      refuses(("the matrix is singular: element %d of the diagonal of the U of its transpose's")
        :format(n - 2), linalg.inv, turned(flat))
      local lu = flat:lu_factor()
      assert.equal(0, lu[n - 2][n - 2]:item())
      assert.equal(0, flat:det():item())
    end
    refuses("matrix (2) of the batch is singular: element 1", linalg.solve,
      nyx.stack { nyx.eye(2), nyx.zeros(2, 2) }, nyx.ones(2, 1))
    refuses("matrix (1) of the batch is singular: element 2", nyx.solve_triangular,
      nyx.tensor { { { 1, 0 }, { 0, 0 } } }, nyx.ones(2, 1), true, { check = true })
    assert.equal(math.huge, nyx.solve_triangular(nyx.tensor { { 1, 0 }, { 0, 0 } }, nyx.ones(2, 1),
      true)[2]:item())
    refuses("matrix (2) of the batch is singular: element 1 of the diagonal of the U of its " ..
      "transpose's", linalg.inv, nyx.stack { nyx.eye(2), nyx.zeros(2, 2) })
    refuses("the matrix is singular: element 1 of the diagonal of the R of its QR", linalg.lstsq,
      nyx.zeros(3, 2), nyx.ones(3))
    refuses("matrix (2) of the batch is singular: element 2 of the diagonal of the R", linalg.lstsq,
      nyx.tensor { { { 1, 0 }, { 0, 1 }, { 0, 0 } }, { { 1, 0 }, { 0, 0 }, { 0, 0 } } },
      nyx.ones(2, 3, 1))
  end)

  it("refuses what does not fit", function()
    refuses("cholesky: 'a' has shape (2x3), expected square matrices", nyx.cholesky, nyx.ones(2, 3))
    refuses("cholesky: 'a' has shape (3), expected 2 dimensions or more", nyx.cholesky, nyx.ones(3))
    refuses("cholesky: not defined for int64", nyx.cholesky,
      nyx.ones({ 2, 2 }, { dtype = "int64" }))
    refuses("linalg.solve: 'a' is a tensor of shape (2x3), expected square", linalg.solve,
      nyx.ones(2, 3), nyx.ones(2))
    refuses("solve: 'b' has shape (2x1), 'a' (3x3); expected as many rows", linalg.solve,
      nyx.eye(3), nyx.ones(2, 1))
    refuses("solve_triangular: 'b' has shape (3x2), 'a' (3x3); expected as many columns",
      nyx.solve_triangular, nyx.eye(3), nyx.ones(3, 2), true, { left = false })
    refuses("do not broadcast", linalg.solve, nyx.ones(2, 3, 3), nyx.ones(3, 3, 1))
    refuses("'mode' is \"full\", expected reduced", nyx.qr, nyx.ones(2, 2), { mode = "full" })
    refuses("pivot_rows: 'pivots' has shape (3), x (2x2)", nyx.pivot_rows, nyx.ones(2, 2),
      nyx.tensor({ 1, 2, 3 }, { dtype = "int64" }))
    refuses("position 3 is out of range", nyx.pivot_rows, nyx.ones(2, 2),
      nyx.tensor({ 3 }, { dtype = "int64" }))
    refuses("unknown option 'upper'", linalg.solve, nyx.eye(2), nyx.ones(2), { upper = true })
    refuses("lstsq: 'a' has shape (2x3), expected at least as many rows", nyx.lstsq,
      nyx.ones(2, 3), nyx.ones(2, 1))
    refuses("lstsq: 'b' has shape (2x1), 'a' (3x2); expected as many rows", nyx.lstsq,
      nyx.ones(3, 2), nyx.ones(2, 1))
    refuses("linalg.lstsq: 'b' is a tensor of shape (2x1), expected as many rows", linalg.lstsq,
      nyx.ones(3, 2), nyx.ones(2, 1))
    local a = random(4, 3):requires_grad_(true)
    refuses("mode complete", function() nyx.qr(a, "complete"):sum():backward() end)
    refuses("mode r", function() select(2, nyx.qr(a, "r")):sum():backward() end)
  end)

  it("gives the same with any number of threads", function()
    local threads = nyx.get_num_threads()
    local a, s = random(600, 600), definite(600, 600)
    local function all()
      return { a:lu_factor(), s:cholesky(), (nyx.solve(a, s)), (a:qr()), a:inverse(),
        (nyx.lstsq(a, s)) }
    end
    local first = all()
    nyx.set_num_threads(1)
    local second = all()
    nyx.set_num_threads(threads)
    for i = 1, #first do assert.is_true(first[i]:equal(second[i])) end
  end)

  it("says what to install where there is no LAPACK", function()
    local command = "NYX_BLAS=none '%s' -e 'require(\"nyx\").eye(2):cholesky()' 2>&1"
    local program = arg and arg[-1] or ""
    if not program:find "nyx" then return pending "is not run by nyx" end
    local file = assert(io.popen(command:format(program)))
    local text = file:read "*a"
    file:close()
    assert.matches("cholesky: this needs LAPACK", text, 1, true)
    assert.matches("install OpenBLAS", text, 1, true)
  end)
end)
