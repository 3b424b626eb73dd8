-- nyx.fft: discrete Fourier transforms, by PyTorch's names (torch.fft). The transforms along
-- dimensions are the ops fft_complex, fft_from_real and fft_to_real; here they get sizes,
-- norms and several dimensions. Read next: core/fft/fft.c, core/op/complex.c.
local nyx = require "nyx"
local check = require "nyx.check"

local M = {}

-- Which factor a norm puts where: of the forward transform, of the inverse.
local factors = {
  backward = { function() return 1 end, function(n) return 1 / n end },
  forward = { function(n) return 1 / n end, function() return 1 end },
  ortho = { function(n) return 1 / math.sqrt(n) end, function(n) return 1 / math.sqrt(n) end },
}

local function factor(where, norm, inverse, n)
  local of = factors[norm or "backward"]
  if not of then
    check.fail("%s: 'norm' is %s, expected \"backward\", \"forward\" or \"ortho\"", where,
      check.describe(norm))
  end
  return of[inverse and 2 or 1](n)
end

local function is_complex(x) return x.dtype == "complex64" or x.dtype == "complex128" end

local function of_complex(where, x)
  check.tensor(where, "x", x)
  return is_complex(x) and x or nyx.complex(x)
end

local function of_real(where, x)
  check.tensor(where, "x", x)
  if is_complex(x) then
    check.fail("%s: 'x' is %s, expected real numbers; nyx.fft.fft transforms complex ones", where,
      x.dtype)
  end
  return x
end

-- x with n elements along dim: cut off at the end, or filled up with zeros.
local function sized(x, dim, n)
  local size = x:size(dim)
  if n == size then return x end
  if n < size then return x:narrow(dim, 1, n) end
  local pad = {}
  for i = 1, 2 * (x.ndim - dim) do pad[i] = 0 end
  pad[#pad + 1], pad[#pad + 2] = 0, n - size
  return x:pad(pad)
end

local function size_of(where, n)
  return check.integer(where, "n", n, 1)
end

-- {n, dim, norm} of transforms along one dimension.
local function one(where, x, options)
  options = check.options(where, options, "n dim norm")
  return check.dim(where, x, options.dim or -1), options.n, options.norm
end

local function complex(where, x, inverse, options)
  x = of_complex(where, x)
  local dim, n, norm = one(where, x, options)
  n = size_of(where, n or x:size(dim))
  return sized(x, dim, n):fft_complex(dim, inverse, factor(where, norm, inverse, n))
end

local function from_real(where, x, inverse, options)
  local dim, n, norm = one(where, of_real(where, x), options)
  n = size_of(where, n or x:size(dim))
  return sized(x, dim, n):fft_from_real(dim, factor(where, norm, inverse, n))
end

local function to_real(where, x, inverse, options)
  x = of_complex(where, x)
  local dim, n, norm = one(where, x, options)
  n = size_of(where, n or 2 * (x:size(dim) - 1))
  local half = sized(x, dim, math.floor(n / 2) + 1)
  return half:fft_to_real(n, dim, factor(where, norm, inverse, n))
end

--- The transform along `dim` (the last): y[k] is the sum of x[j] e^(-2 pi i j k / n), j and k
--- from 0. x is cut to n elements or filled up with zeros. norm: "backward" (no factor),
--- "forward" (1/n) or "ortho" (1/sqrt(n)).
---@param x nyx.Tensor
---@param options? {n: integer, dim: integer, norm: string}
---@return nyx.Tensor complex
function M.fft(x, options) return complex("fft", x, false, options) end

--- The inverse of `fft`, with e^(+...); "backward" divides by n.
---@param x nyx.Tensor
---@param options? {n: integer, dim: integer, norm: string}
---@return nyx.Tensor complex
function M.ifft(x, options) return complex("ifft", x, true, options) end

--- The first n/2 + 1 results of the transform of real numbers; the others are conjugates.
---@param x nyx.Tensor real
---@param options? {n: integer, dim: integer, norm: string}
---@return nyx.Tensor complex
function M.rfft(x, options) return from_real("rfft", x, false, options) end

--- The inverse of `rfft`: n real numbers, 2 (size - 1) when left out.
---@param x nyx.Tensor
---@param options? {n: integer, dim: integer, norm: string}
---@return nyx.Tensor real
function M.irfft(x, options) return to_real("irfft", x, true, options) end

--- The transform, real, of what is conjugate-symmetric in time: the half of it is given.
---@param x nyx.Tensor
---@param options? {n: integer, dim: integer, norm: string}
---@return nyx.Tensor real
function M.hfft(x, options) return to_real("hfft", of_complex("hfft", x):conj(), false, options) end

--- The inverse of `hfft`.
---@param x nyx.Tensor real
---@param options? {n: integer, dim: integer, norm: string}
---@return nyx.Tensor complex
function M.ihfft(x, options) return from_real("ihfft", x, true, options):conj() end

-- ---------------------------------------------------------------- several dimensions

-- The dimensions {s, dim} ask for, from 1, and the size of each (nil: as it is).
local function several(where, x, options, preset)
  options = check.options(where, options, "s dim norm")
  local dims, sizes = options.dim, options.s
  if not dims then
    dims = {}
    local count = sizes and #sizes or preset or x.ndim
    for i = 1, count do dims[i] = i - count - 1 end
  end
  if sizes and #sizes ~= #dims then
    check.fail("%s: 's' has %d sizes for %d dimensions", where, #sizes, #dims)
  end
  local at, seen = {}, {}
  for i = 1, #dims do
    at[i] = check.dim(where, x, dims[i])
    if seen[at[i]] then check.fail("%s: dimension %d is named twice", where, at[i]) end
    seen[at[i]] = true
  end
  if #at == 0 then check.fail("%s: no dimensions; expected at least one", where) end
  return at, sizes or {}, options.norm
end

-- x with the sizes of the first `count` dimensions, and the factor for them together.
local function all_sized(where, x, dims, sizes, norm, inverse, count)
  local by = 1
  for i = count, 1, -1 do
    local n = size_of(where, sizes[i] or x:size(dims[i]))
    x, by = sized(x, dims[i], n), by * factor(where, norm, inverse, n)
  end
  return x, by
end

local function nd(where, inverse, preset)
  return function(x, options)
    x = of_complex(where, x)
    local dims, sizes, norm = several(where, x, options, preset)
    local y, by = all_sized(where, x, dims, sizes, norm, inverse, #dims)
    return y:fft_complex(dims, inverse, by)
  end
end

-- Real numbers become complex along the last dimension, or complex ones real after all others.
local function nd_from_real(where, preset)
  return function(x, options)
    local dims, sizes, norm = several(where, of_real(where, x), options, preset)
    local y, by = all_sized(where, x, dims, sizes, norm, false, #dims)
    return y:fft_from_real(dims, by)
  end
end

local function nd_to_real(where, preset)
  return function(x, options)
    local dims, sizes, norm = several(where, check.tensor(where, "x", x), options, preset)
    local n = #dims
    local last = { n = sizes[n], dim = dims[n], norm = norm }
    local y, by = all_sized(where, of_complex(where, x), dims, sizes, norm, true, n - 1)
    if n > 1 then
      local others = {}
      for i = 1, n - 1 do others[i] = dims[i] end
      y = y:fft_complex(others, true, by)
    end
    return to_real(where, y, true, last)
  end
end

--- `fft` along several dimensions: those of `dim`, or as many last ones as `s` has sizes, or
--- all; fft2, ifft2, rfft2 and irfft2 take the last two.
---@param x nyx.Tensor
---@param options? {s: integer[], dim: integer[], norm: string}
---@return nyx.Tensor complex
M.fftn = nd("fftn", false)
M.ifftn = nd("ifftn", true)
M.fft2 = nd("fft2", false, 2)
M.ifft2 = nd("ifft2", true, 2)
M.rfftn = nd_from_real("rfftn")
M.rfft2 = nd_from_real("rfft2", 2)
M.irfftn = nd_to_real("irfftn")
M.irfft2 = nd_to_real("irfft2", 2)

-- ---------------------------------------------------------------- frequencies

--- The frequencies of the results of `fft`, in cycles per unit of the step d (1) between
--- samples: 0, 1, ... then the negative ones, over n d.
---@param n integer
---@param d? number
---@param options? {dtype: string, device: string}
---@return nyx.Tensor
function M.fftfreq(n, d, options)
  check.integer("fftfreq", "n", n, 1)
  d = check.number("fftfreq", "d", d or 1)
  local half = math.floor((n - 1) / 2) + 1
  local positions = nyx.cat({ nyx.arange(0, half, 1), nyx.arange(-math.floor(n / 2), 0, 1) })
  return positions:to("float64"):div(n * d):to(options or { dtype = "float32" })
end

--- Those of the results of `rfft`.
---@param n integer
---@param d? number
---@param options? {dtype: string, device: string}
---@return nyx.Tensor
function M.rfftfreq(n, d, options)
  check.integer("rfftfreq", "n", n, 1)
  d = check.number("rfftfreq", "d", d or 1)
  return nyx.arange(0, math.floor(n / 2) + 1, 1):to("float64"):div(n * d)
    :to(options or { dtype = "float32" })
end

local function shift(where, x, dims, amount)
  check.tensor(where, "x", x)
  if dims == nil then
    dims = {}
    for d = 1, x.ndim do dims[d] = d end
  elseif type(dims) == "number" then
    dims = { dims }
  end
  local shifts, at = {}, {}
  for i = 1, #dims do
    at[i] = check.dim(where, x, dims[i])
    shifts[i] = amount(x:size(at[i]))
  end
  return #at == 0 and x or x:roll(shifts, at)
end

--- x with the zero frequency in the middle of the dimensions (all).
---@param x nyx.Tensor
---@param dims? integer|integer[]
---@return nyx.Tensor
function M.fftshift(x, dims)
  return shift("fftshift", x, dims, function(n) return math.floor(n / 2) end)
end

--- The opposite of `fftshift`.
---@param x nyx.Tensor
---@param dims? integer|integer[]
---@return nyx.Tensor
function M.ifftshift(x, dims)
  return shift("ifftshift", x, dims, function(n) return math.floor((n + 1) / 2) end)
end

return M
