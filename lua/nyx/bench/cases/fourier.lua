-- Fourier transforms. Complex numbers are compared as pairs of real ones.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local case, values = bench.case, bench.values
local fft = nyx.fft
local options = { tol = 1e-5 }

local function complex(shape)
  return nyx.complex(values(1, shape), values(2, shape))
end

for _, named in ipairs { { "fft_256x1024", 256, 1024 }, { "fft_1m", 2 ^ 20 },
  { "fft_16_of_10007", 16, 10007 } } do
  case(named[1], options, function()
    local x = complex { named[2], named[3] }
    return function() return fft.fft(x):view_as_real() end
  end)
end

for _, named in ipairs { { "rfft_256x1024", 256, 1024 }, { "rfft_1m", 2 ^ 20 } } do
  case(named[1], options, function()
    local x = values(1, { named[2], named[3] })
    return function() return fft.rfft(x):view_as_real() end
  end)
end

case("fft2_1024", options, function()
  local x = complex { 1024, 1024 }
  return function() return fft.fft2(x):view_as_real() end
end)

case("fftn_64", options, function()
  local x = complex { 64, 64, 64 }
  return function() return fft.fftn(x):view_as_real() end
end)
