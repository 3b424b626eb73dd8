-- Products of matrices. In a name n is a matrix as it lies, t one that lies transposed.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local case, values = bench.case, bench.values

local function gemm(name, m, n, k, layout, options)
  local ta, tb = layout:sub(1, 1) == "t", layout:sub(2, 2) == "t"
  local dtype = options.dtype or "float32"
  options.limit = { dtype == "float64" and "fma64" or "fma32", 2 * m * n * k }
  options.peer = ("gemm %s %d %d %d %s"):format(dtype, m, n, k, layout)
  case(name, options, function()
    local x = values(1, ta and { k, m } or { m, k }):to(dtype)
    local y = values(2, tb and { n, k } or { k, n }):to(dtype)
    if ta then x = x:t() end
    if tb then y = y:t() end
    if not options.out then return function() return x:matmul(y) end end
    local into = { out = nyx.empty({ m, n }, { dtype = dtype }) }
    return function() return x:matmul(y, into) end
  end)
end

for _, size in ipairs { 512, 1024, 2048, 4096 } do
  for _, layout in ipairs { "nn", "nt", "tn", "tt" } do
    gemm(("sgemm_%d_%s"):format(size, layout), size, size, size, layout, {})
  end
end
gemm("sgemm_1024_nn_out", 1024, 1024, 1024, "nn", { out = true })
for _, size in ipairs { 8, 16, 32, 64, 128 } do
  gemm("sgemm_" .. size, size, size, size, "nn", {})
end
gemm("sgemm_64x784x128", 64, 128, 784, "nn", {})
-- A small layer over many positions, and the gradient of its weight.
gemm("sgemm_16384x64x64", 16384, 64, 64, "nt", {})
gemm("sgemm_64x16384x64", 64, 64, 16384, "tn", {})
gemm("dgemm_1024", 1024, 1024, 1024, "nn", { dtype = "float64", tol = 1e-12 })

case("bf16_1024", { limit = { "bf16", 2 * 1024 ^ 3 }, tol = 1e-2,
  peer = "gemm bfloat16 1024 1024 1024 nn" }, function()
  local x, y = values(1, { 1024, 1024 }):bfloat16(), values(2, { 1024, 1024 }):bfloat16()
  return function() return x:matmul(y) end
end)

for _, size in ipairs { 1024, 4096 } do
  case("int8_" .. size, { limit = { "int8", 2 * size ^ 3 }, tol = 0,
    peer = ("gemm int8 %d %d %d nn"):format(size, size, size) }, function()
    local x = bench.integers(1, -128, 128, { size, size }):to "int8"
    local y = bench.integers(2, -128, 128, { size, size }):to "int8"
    return function() return x:int_mm(y) end
  end)
end

for _, transposed in ipairs { false, true } do
  case(transposed and "gemv_4096_t" or "gemv_4096", { limit = { "read", 4 * 4096 ^ 2 },
    peer = "gemv float32 4096 4096 " .. (transposed and "t" or "n") }, function()
    local x, v = values(1, { 4096, 4096 }), values(2, { 4096 })
    if transposed then x = x:t() end
    return function() return x:matmul(v) end
  end)
end

for _, shape in ipairs { { 96, 64, 64, 64 }, { 12, 1024, 64, 1024 } } do
  local b, m, k, n = shape[1], shape[2], shape[3], shape[4]
  case(("bmm_%d_of_%dx%dx%d"):format(b, m, k, n), { limit = { "fma32", 2 * b * m * n * k },
    peer = ("bmm float32 %d %d %d %d"):format(b, m, n, k) }, function()
    local x, y = values(1, { b, m, k }), values(2, { b, k, n })
    return function() return x:matmul(y) end
  end)
end

-- A row, as of one token, times the weight of a layer.
for _, kind in ipairs { "float32", "bfloat16", "int8", "int4" } do
  local bytes = { float32 = 4, bfloat16 = 2, int8 = 1, int4 = 0.5 }
  case("linear_row_4096_" .. kind, { limit = { "read", bytes[kind] * 4096 ^ 2 },
    tol = kind ~= "float32" and 2e-2 or nil }, function()
    local x = values(1, { 1, 4096 })
    if kind == "float32" then
      local w = values(2, { 4096, 4096 })
      return function() return x:linear(w) end
    end
    x = x:bfloat16()
    if kind == "bfloat16" then
      local w = values(2, { 4096, 4096 }):bfloat16()
      return function() return x:linear(w) end
    end
    local int4 = kind == "int4"
    local q = int4 and bench.integers(2, 0, 256, { 4096, 2048 }):to "uint8"
      or bench.integers(2, -128, 128, { 4096, 4096 }):to "int8"
    local scales = values(3, int4 and { 4096, 32 } or { 4096 }):bfloat16()
    return function() return nyx.linear_quantized(x, q, scales) end
  end)
end

-- Some rows, with the weight packed in every call or once.
for _, rows in ipairs { 4, 16, 64 } do
  for _, prepacked in ipairs { false, true } do
    case(("linear_%d_rows_4096%s"):format(rows, prepacked and "_prepacked" or ""),
      { limit = { "fma32", 2 * rows * 4096 ^ 2 } }, function()
      local x, w = values(1, { rows, 4096 }), values(2, { 4096, 4096 })
      if prepacked then w:keep_packed() end
      return function() return x:linear(w) end
    end)
  end
end
