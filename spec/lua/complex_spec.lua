-- Complex tensors at the prompt: making, printing, reading, saving, errors. Their arithmetic and
-- gradients are compared with PyTorch's in spec/peers/complexes.py.
package.path = debug.getinfo(1, "S").source:match "^@(.*/)" .. "?.lua;" .. package.path
local nyx = require "nyx"
local checks = require "checks"

local message_of = checks.message_of
local unpack = table.unpack or unpack

local function pair(re, im) return nyx.complex(nyx.tensor(re), nyx.tensor(im)) end

describe("complex tensors", function()
  it("print both parts in one format", function()
    assert.equal(" 1+2i  3-4i\n[complex64 tensor of size 2]", tostring(pair({ 1, 3 }, { 2, -4 })))
    assert.equal("  1.5000+0.0000i  -3.0000-0.2500i\n[complex64 tensor of size 2]",
      tostring(pair({ 1.5, -3 }, { 0, -0.25 })))
    assert.matches("nan%+infi", tostring(pair({ 0 / 0 }, { 1 / 0 })))
    assert.matches("1%+0i  1%+0i", tostring(nyx.ones({ 2 }, { dtype = "complex128" })))
    local large = nyx.zeros({ 2000 }, { dtype = "complex64" })
    assert.matches("0%+0i%s+%.%.%.%s+0%+0i", tostring(large))
  end)

  it("are read as pairs", function()
    local re, im = pair({ 1.5 }, { -2 }):item()
    assert.same({ 1.5, -2 }, { re, im })
    assert.same({ { 1, 2 }, { 3, 4 } }, pair({ 1, 3 }, { 2, 4 }):totable())
    local z = pair({ 1, 3 }, { 2, 4 })
    assert.is_true(nyx.frombuffer(z:tobytes(), "complex64"):equal(z))
    assert.same({ { 1, 2 }, { 3, 4 } }, z:view_as_real():totable())
  end)

  it("are made of numbers and changed at positions", function()
    local z = nyx.tensor({ { 1, 2 }, { 3, 4 } }, { dtype = "complex128" })
    assert.equal("complex128", z.dtype)
    z[{ 1, 2 }] = 7
    z[2] = pair({ 1, 2 }, { 5, 6 })
    assert.same({ { { 1, 0 }, { 7, 0 } }, { { 1, 5 }, { 2, 6 } } }, z:totable())
    z:real():fill_(9)
    assert.same({ { { 9, 0 }, { 9, 0 } }, { { 9, 5 }, { 9, 6 } } }, z:totable())
    z:mul_(2):add_(nyx.complex(nyx.tensor(1), nyx.tensor(1)))
    assert.same({ 19, 11 }, z:totable()[2][1])
    assert.same({ { 3, 0 }, { 3, 0 } }, nyx.full({ 2 }, 3, { dtype = "complex64" }):totable())
    assert.same({ { 1, 0 } }, z:new_ones({ 1 }):totable())
  end)

  it("lie in any strides and dimensions", function()
    local z = nyx.complex(nyx.randn { 3, 4, 5 }, nyx.randn { 3, 4, 5 })
    local turned = z:permute { 3, 1, 2 }
    assert.is_true(turned:contiguous():permute({ 2, 3, 1 }):equal(z))
    assert.is_true(turned:contiguous():eq(turned):all():item())
    assert.is_true((turned * turned):permute({ 2, 3, 1 }):eq(z * z):all():item())
    local most = nyx.zeros({ 1, 2, 1, 1, 1, 1, 1, 1 }, { dtype = "complex64" })
    assert.is_true(most:permute({ 2, 1, 3, 4, 5, 6, 7, 8 }):contiguous():equal(
      most:reshape { 2, 1, 1, 1, 1, 1, 1, 1 }))
    assert.same({ 2, 0 }, ((most + 1) * 2 / 1):reshape(-1):totable()[2])
    assert.same({ 1, 0 }, nyx.where(most:eq(0), 1, most):reshape(-1):totable()[2])
    assert.same({ -1, 0 }, (most:exp() * -1):reshape(-1):totable()[1])
    assert.matches("9 dimensions, expected 0 to 8",
      message_of(function() return most:view_as_real() end))
  end)

  it("take real numbers among them as such, infinite ones too", function()
    local z = pair({ 1 }, { 2 })
    local inf = nyx.tensor({ 1 / 0 })
    assert.same({ { 1, 2 }, { 1 / 0, 0 } }, nyx.cat({ z, inf }):totable())
    assert.same({ { 1 / 0, 2 } }, (z + inf):totable())
    assert.same({ { 1 / 0, 0 } }, nyx.where(z:real():lt(0), z, inf):totable())
    local leaf = pair({ 1 }, { 2 }):requires_grad_()
    assert.same({ { 0, 1 / 0 } }, nyx.grad(leaf:imag(), { leaf }, { gradient = inf })[1]:totable())
  end)

  it("have inverse functions with C's cuts", function()
    -- From above and from below, as the sign of the imaginary zero says.
    local double = { dtype = "float64" }
    local function on(re, im)
      return nyx.complex(nyx.tensor(re, double), nyx.tensor(im, double))
    end
    local function near(want, got)
      want, got = on(want[1], want[2]), got
      assert.is_true(got:isclose(want, 1e-14, 1e-14):all():item(), tostring(got))
    end
    local pi, a = math.pi, 1.3169578969248167 -- acosh(2)
    local z = on({ 2, 2, -2, -2 }, { 0, -0.0, 0, -0.0 })
    near({ { pi / 2, pi / 2, -pi / 2, -pi / 2 }, { a, -a, a, -a } }, z:asin())
    near({ { 0, 0, pi, pi }, { -a, a, -a, a } }, z:acos())
    near({ { a, a, a, a }, { 0, 0, pi, -pi } }, z:acosh())
    near({ { 0.5 * math.log(3), 0.5 * math.log(3), -0.5 * math.log(3), -0.5 * math.log(3) },
      { pi / 2, -pi / 2, pi / 2, -pi / 2 } }, z:atanh())
    near({ { 0, 0 }, { 1, -1 } }, on({ -1, -1 }, { 0, -0.0 }):sqrt())
    local y = on({ 0, -0.0 }, { 2, 2 })
    near({ { a, -a }, { pi / 2, pi / 2 } }, y:asinh())
    near({ { pi / 2, -pi / 2 }, { 0.5 * math.log(3), 0.5 * math.log(3) } }, y:atan())
    near({ { 1, -1 }, { 0, 0 } }, on({ 800, -800 }, { 1, 1 }):tanh())
    near({ { 1e-9 }, { 1e-12 } }, on({ 1e-9 }, { 1e-12 }):log1p())
    near({ { 1e-9 }, { 1e-12 } }, on({ 1e-9 }, { 1e-12 }):expm1())
    -- On the cut the derivative is that of the side: 1 / (2 sqrt(-1)).
    local x = on({ -1 }, { 0 }):requires_grad_()
    near({ { 0 }, { 0.5 } }, nyx.grad(x:sqrt():real():sum(), { x })[1])
  end)

  it("multiply along dimensions, of nothing to 1", function()
    local z = pair({ { 1, 2, 3 }, { 0, 1, 2 } }, { { 1, 0, -1 }, { 1, 1, 1 } })
    assert.same({ { 8, 4 }, { -3, 1 } }, z:prod(2):totable())
    assert.same({ { -28, -4 } }, z:prod():reshape(1):totable())
    assert.same({ 1, 1 }, z:prod({ 1, 2 }, true).shape)
    local none = nyx.zeros({ 2, 0 }, { dtype = "complex64" })
    assert.same({ { 1, 0 }, { 1, 0 } }, none:prod(2):totable())
    assert.matches("dimension", message_of(function() return z:prod(3) end))
    local x = pair({ 0, 2, 3 }, { 0, 1, 0 }):requires_grad_()
    x:prod():real():backward()
    assert.same({ { 6, -3 }, { 0, 0 }, { 0, 0 } }, x.grad:totable())
  end)

  it("spread and are drawn with a variance of 1", function()
    local z = pair({ 1, 3 }, { 2, -2 })
    assert.equal(10, z:var():item())
    assert.equal(5, z:var(nil, 0):item())
    local v, m = z:var_mean()
    assert.equal("float32", v.dtype)
    assert.equal("complex64", m.dtype)
    local same = pair({ 1, 1 }, { 2, 2 }):requires_grad_()
    same:std():backward()
    assert.same({ { 0, 0 }, { 0, 0 } }, same.grad:totable())
    for _, dtype in ipairs { "complex64", "complex128" } do
      nyx.manual_seed(3)
      local r = nyx.randn({ 20001 }, { dtype = dtype })
      assert.near(1, r:abs():square():mean():item(), 0.05)
      assert.near(0.5, r:real():var():item(), 0.03)
      assert.near(0.5, r:imag():var():item(), 0.03)
      assert.near(0, (r:real() * r:imag()):mean():item(), 0.03)
      assert.equal(dtype, nyx.randn_like(r).dtype)
      local u = nyx.rand({ 1000 }, { dtype = dtype }):view_as_real()
      assert.is_true(u:ge(0):logical_and(u:lt(1)):all():item())
    end
  end)

  it("are saved and loaded", function()
    local double = { dtype = "float64" }
    local z = nyx.complex(nyx.randn({ 3, 2 }, double), nyx.randn({ 3, 2 }, double))
    for _, name in ipairs { ".npy", ".safetensors" } do
      local path = os.tmpname()
      os.remove(path)
      for _, dtype in ipairs { "complex64", "complex128" } do
        local saved = z:to(dtype)
        assert(nyx.save(path .. name, name == ".npy" and saved or { z = saved }))
        local loaded = assert(nyx.load(path .. name))
        loaded = name == ".npy" and loaded or loaded.z
        assert.equal(dtype, loaded.dtype)
        assert.is_true(loaded:equal(saved))
      end
      os.remove(path .. name)
    end
  end)

  it("say what they are not", function()
    local z = pair({ 1, 3 }, { 2, -4 })
    assert.matches("cast: complex64 does not become float32: the imaginary part would be lost",
      message_of(function() return z:to "float32" end))
    assert.matches("the result is complex64, which cannot be written to a tensor of float32",
      message_of(function() return nyx.ones({ 2 }):add_(z) end))
    assert.has_error(function() return nyx.ones({ 2 }):copy_(z) end)
    assert.matches("relu: not defined for complex64", message_of(function() return z:relu() end))
    assert.matches("lt: not defined for complex64", message_of(function() return z:lt(z) end))
    assert.matches("imag: not defined for float32",
      message_of(function() return nyx.ones({ 2 }):imag() end))
    assert.matches("expected a last dimension of size 2",
      message_of(function() return nyx.ones({ 3 }):view_as_complex() end))
    assert.matches("do not broadcast", message_of(function() return z * nyx.ones { 3 } end))
    local leaf = pair({ 1 }, { 2 }):requires_grad_()
    assert.matches("must be real", message_of(function() (leaf * leaf):sum():backward() end))
    assert.matches("complex tensors change in place only where nothing is recorded",
      message_of(function() return (leaf * 1):mul_(2) end))
    assert.matches("in place",
      message_of(function() return (leaf * 1):view_as_real():mul_(2) end))
  end)

  it("have gradients that add up in leaves", function()
    local z = pair({ 1, 3 }, { 2, -4 }):requires_grad_()
    for _ = 1, 2 do z:abs():square():sum():backward() end
    assert.is_true(z.grad:isclose(4 * z):all():item())
    local x = nyx.tensor({ 2 }):requires_grad_()
    nyx.complex(x, 3 * x):abs():backward()
    assert.is_true(math.abs(x.grad:item() - math.sqrt(10)) < 1e-5)
    assert.same({ { 0, 0 } }, (function()
      local zero = pair({ 0 }, { 0 }):requires_grad_()
      zero:abs():sum():backward()
      return zero.grad:totable()
    end)())
  end)

  it("go through nyx.func", function()
    local z = nyx.complex(nyx.randn { 4, 3 }, nyx.randn { 4, 3 })
    local f = function(a) return (a * a:conj()):real():sum() end
    local each = nyx.func.vmap(f)(z)
    assert.is_true(each:isclose(z:abs():square():sum(2), 1e-4):all():item())
    local g = nyx.func.grad(f)(z)
    assert.is_true(g:isclose(2 * z, 1e-4):all():item())
    local _, along = nyx.func.jvp(function(a) return a * a end, { z }, { z })
    assert.is_true(along:isclose(2 * z * z, 1e-4, 1e-5):all():item())
  end)

  -- In units of the last place of float32, beside the same in complex128.
  local function error_of(got, want)
    want = want:to "complex128"
    return ((got:to "complex128" - want):abs() / want:abs()):amax():item() * 2 ^ 24
  end

  local function drawn(...)
    return nyx.randn({ ... }, { dtype = "complex64" })
  end

  it("divide as near as products, by any stride, numbers too", function()
    nyx.manual_seed(8)
    for _, n in ipairs { 1, 7, 16, 33, 1001, 20000 } do
      local x, y = drawn(n), drawn(n)
      local wide_x, wide_y = x:to "complex128", y:to "complex128"
      assert.is_true(error_of(x / y, wide_x / wide_y) < 6)
      assert.is_true(error_of(y:reciprocal(), 1 / wide_y) < 5)
      assert.is_true(error_of(x / y[1], wide_x / wide_y[1]) < 6)
      assert.is_true(error_of(x[1] / y, wide_x[1] / wide_y) < 6)
      assert.is_true(error_of(wide_x / wide_y * wide_y, wide_x) < 8 * 2 ^ -29)
      assert.is_true(error_of(x:complex_div(y, true), wide_x / wide_y:conj()) < 6)
    end
    local x, y = drawn(5, 9), drawn(9, 5)
    assert.is_true((x / y:t()):equal(x / y:t():contiguous()))
    assert.is_true((x / y[{ {}, 1 }]):equal(x / y[{ {}, 1 }]:contiguous():expand(5, 9)))
  end)

  it("divide where squares overflow, and by zero and infinity", function()
    local inf = 1 / 0
    for _, dtype in ipairs { "float32", "float64" } do
      local function quotient(a, b, c, d)
        local function number(re, im)
          local options = { dtype = dtype }
          return nyx.complex(nyx.tensor({ re }, options), nyx.tensor({ im }, options))
        end
        local z = number(a, b) / number(c, d)
        return z:item()
      end
      local large = dtype == "float32" and 2 ^ 127 or 2 ^ 1023
      local small = dtype == "float32" and 2 ^ -148 or 2 ^ -1072
      assert.same({ 1, 0 }, { quotient(large, large, large, large) })
      assert.same({ large, 0 }, { quotient(large, large, 1, 1) })
      assert.same({ 0.5 / large, -0.5 / large }, { quotient(1, 0, large, large) })
      assert.same({ 1, 0 }, { quotient(small, small, small, small) })
      assert.same({ 0.5, 0 }, { quotient(small, 0, 2 * small, 0) })
      assert.same({ 0, -1 }, { quotient(1, -1, 1, 1) })
      assert.same({ inf, inf }, { quotient(3, 2, 0, 0) })
      local re, im = quotient(1, 0, 0, 0)
      assert.is_true(re == inf and im ~= im)
      for _, y in ipairs { { inf, 0 }, { -inf, 1 }, { 1, inf } } do
        local a, b = quotient(3, 2, y[1], y[2])
        assert.is_true(a == 0 and b == 0)
      end
      for _, y in ipairs { { inf, inf }, { 0 / 0, 1 }, { inf, 0 / 0 }, { 0 / 0, -inf } } do
        local a, b = quotient(3, 2, y[1], y[2])
        assert.is_true(a ~= a and b ~= b)
      end
    end
  end)

  it("add up as their parts do", function()
    nyx.manual_seed(9)
    local shapes = { { 1, 5 }, { 7, 300 }, { 300, 7 }, { 3, 40, 50 }, { 1, 20001 }, { 20001, 1 },
      { 40, 3, 9 } }
    for _, shape in ipairs(shapes) do
      for _, z in ipairs { drawn(unpack(shape)),
        nyx.randn(shape, { dtype = "complex128" }) } do
        local turned = z:transpose(1, 2)
        for _, x in ipairs { z, turned } do
          local wide = x:to "complex128"
          for d = 1, #shape do
            for _, name in ipairs { "sum", "mean" } do
              local want = nyx.complex(wide:real()[name](wide:real(), d, true),
                wide:imag()[name](wide:imag(), d, true))
              assert.is_true(x[name](x, d, true):isclose(want, 1e-4, 1e-4):all():item())
              assert.same(x[name](x, -1).shape, x:real()[name](x:real(), -1).shape)
            end
            for options = 0, 3 do
              local reverse, exclusive = options % 2 == 1, options > 1
              local got = x:cumsum(d - #shape - 1, reverse, exclusive)
              local want = nyx.complex(wide:real():cumsum(d, reverse, exclusive),
                wide:imag():cumsum(d, reverse, exclusive))
              assert.is_true(got:isclose(want, 1e-6, 2e-5):all():item())
            end
          end
          assert.is_true(x:sum():isclose(x:sum({ 1, -1 }):sum(), 1e-4, 1e-3):item())
        end
      end
    end
    assert.same({ 0, 0 }, nyx.zeros({ 0, 2 }, { dtype = "complex64" }):sum():totable())
    assert.same({ 3, 0 }, nyx.full({}, 3, { dtype = "complex64" }):cumsum(1):totable())
    assert.same({ 3, 0 }, nyx.full({}, 3, { dtype = "complex64" }):sum():totable())
    assert.matches("dimension", message_of(function() return drawn(3):sum(2) end))
    assert.matches("dimension", message_of(function() return drawn(3):cumsum(2) end))
  end)

  it("multiply along rows as what is recorded does", function()
    nyx.manual_seed(10)
    for _, n in ipairs { 0, 1, 2, 5, 31, 32, 33, 64, 100, 8192, 8193, 20000 } do
      local z = drawn(2, n)
      z = z / z:abs()
      local recorded = z:to("complex128"):requires_grad_():prod(2)
      assert.is_true(z:prod(2):isclose(recorded, 1e-5, 2e-5 + n * 1e-7):all():item())
      assert.is_true(z:t():prod(1):isclose(recorded, 1e-5, 2e-5 + n * 1e-7):all():item())
      assert.is_true(z:prod():isclose(recorded:prod(), 1e-5, 4e-5 + 2 * n * 1e-7):all():item())
      assert.is_true(nyx.func.vmap(function(x) return x:prod() end)(z):isclose(recorded, 1e-5,
        2e-5 + n * 1e-7):all():item())
    end
    local inf = pair({ 1 / 0, 2 }, { 0, 0 })
    assert.equal(1 / 0, (inf:prod():item()))
    assert.matches("complex_prod", message_of(function() return drawn(2)[1]:complex_prod() end))
  end)

  it("multiply as matrices, vectors and batches, with real ones", function()
    nyx.manual_seed(11)
    local calls = {
      { { 3, 4 }, { 4, 5 } }, { { 4 }, { 4, 5 } }, { { 3, 4 }, { 4 } }, { { 4 }, { 4 } },
      { { 2, 1, 3, 4 }, { 6, 4, 5 } }, { { 6, 3, 4 }, { 4 } }, { { 40, 70 }, { 70, 33 } },
      { { 3, 0 }, { 0, 2 } }, { { 0, 3 }, { 3, 2 } }, { { 1, 1, 1, 1, 1, 1, 3, 4 }, { 4, 2 } } }
    for _, shapes in ipairs(calls) do
      local x, y = drawn(unpack(shapes[1])), drawn(unpack(shapes[2]))
      local a, b, p, q = x:real():double(), x:imag():double(), y:real():double(), y:imag():double()
      local want = nyx.complex(a:matmul(p) - b:matmul(q), a:matmul(q) + b:matmul(p))
      local function near(got, all)
        assert.same(all.shape, got.shape)
        assert.equal("complex64", got.dtype)
        assert.is_true(got:isclose(all, 1e-5, 1e-5):all():item())
      end
      near(x:matmul(y), want)
      near(x:real():matmul(y), nyx.complex(a:matmul(p), a:matmul(q)))
      near(x:matmul(y:real()), nyx.complex(a:matmul(p), b:matmul(p)))
      if #shapes[2] == 2 then near(x:matmul(y:t():contiguous():t()), want) end
    end
    local x, y = drawn(3, 4), drawn(4, 2)
    local wide = x:to("complex128"):matmul(y)
    assert.equal("complex128", wide.dtype)
    assert.matches("matmul: inner sizes differ: %(3x4%) @ %(5x2%)",
      message_of(function() return x:matmul(drawn(5, 2)) end))
    nyx.autocast({ dtype = "bfloat16" }, function()
      assert.is_true(x:matmul(y):isclose(wide, 0.1, 0.1):all():item())
    end)
  end)
end)
