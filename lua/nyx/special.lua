-- Special functions by PyTorch's names that are a few ops each; lgamma, zeta and others are rows
-- of kernels/elementwise.def. Read next: compose.lua.
local nyx = require "nyx"
local check = require "nyx.check"
local docs = require("nyx.tensor").docs

local Tensor = nyx.Tensor

docs.polygamma = { "special", "nyx.polygamma(n, x) or x:polygamma(n): the derivative of order n " ..
  "(0, 1, ...) of digamma, (-1)^(n + 1) n! zeta(n + 1, x); infinite at 0 and negative integers" }
--- The n-th derivative of digamma.
---@param n integer from 0
---@param x nyx.Tensor
---@return nyx.Tensor
function nyx.polygamma(n, x)
  check.integer("polygamma", "n", n, 0)
  check.tensor("polygamma", "x", x)
  if n == 0 then return x:digamma() end
  local factor = n % 2 == 0 and -1 or 1
  for k = 2, n do factor = factor * k end
  return nyx.zeta(n + 1.0, x) * factor
end
--- The n-th derivative of digamma.
---@param n integer from 0
---@return nyx.Tensor
function Tensor:polygamma(n) return nyx.polygamma(n, self) end

docs.mvlgamma = { "special", "x:mvlgamma(p): the logarithm of the multivariate gamma function " ..
  "of p (1, 2, ...) dimensions, p (p - 1) / 4 * log(pi) + the sum of lgamma(x - i / 2) for i " ..
  "from 0 to p - 1; it is defined for x > (p - 1) / 2" }
--- The logarithm of the multivariate gamma function.
---@param p integer from 1
---@return nyx.Tensor
function Tensor:mvlgamma(p)
  check.tensor("mvlgamma", "x", self)
  check.integer("mvlgamma", "p", p)
  local sum = self:lgamma()
  for i = 1, p - 1 do sum = sum + (self - i / 2):lgamma() end
  return sum + p * (p - 1) / 4 * math.log(math.pi)
end

docs.ldexp = { "arithmetic", "x:ldexp(n): x * 2^n; n is a number or a tensor" }
--- x * 2^n.
---@param n nyx.Tensor|number
---@return nyx.Tensor
function Tensor:ldexp(n)
  check.tensor("ldexp", "x", self)
  if type(n) == "number" then
    n = nyx.tensor(n, { dtype = self:is_floating_point() and self.dtype or nil })
  end
  check.tensor("ldexp", "n", n)
  if self.dtype == "float64" then n = n:to "float64" end -- whose powers of 2 reach farther
  return self * n:exp2()
end

docs.frexp = { "arithmetic", "x:frexp(): m and n, x = m * 2^n where m is 0.5 to below 1 in size " ..
  "and n an int32; 0, nan and infinities are their own m, n is 0 then" }
--- x as a fraction of at least 0.5 and below 1 in size, times a power of 2.
---@return nyx.Tensor fraction
---@return nyx.Tensor exponent int32
function Tensor:frexp()
  check.tensor("frexp", "x", self)
  if not self:is_floating_point() then
    check.fail("frexp: 'x' has dtype %s, expected floats", self.dtype)
  end
  return self:mantissa(), self:detach():exponent():to "int32"
end

for _, name in ipairs { "mvlgamma", "ldexp", "frexp" } do nyx[name] = Tensor[name] end

return {}
