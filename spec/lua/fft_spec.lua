-- nyx.fft: every length against the definition, of both dtypes; errors. Options, norms, several
-- dimensions and gradients are compared with PyTorch's in spec/peers/complexes.py.
package.path = debug.getinfo(1, "S").source:match "^@(.*/)" .. "?.lua;" .. package.path
local nyx = require "nyx"
local checks = require "checks"

local message_of = checks.message_of

local function random(shape, dtype)
  return nyx.complex(nyx.randn(shape, { dtype = dtype }), nyx.randn(shape, { dtype = dtype }))
end

-- By the definition, of the rows of x, in complex128.
local function defined(x, sign)
  local n = x:size(2)
  local k = nyx.arange(0, n, 1, { dtype = "float64" })
  local angle = (k:unsqueeze(2) * k):remainder(n) * (sign * 2 * math.pi / n)
  return x:to("complex128"):matmul(nyx.polar(nyx.ones({ n, n }, { dtype = "float64" }), angle))
end

local function worst(a, b)
  return (a:to("complex128") - b:to("complex128")):abs():max():item() / b:abs():max():item()
end

describe("nyx.fft", function()
  for dtype, bound in pairs { float64 = 2e-15, float32 = 1e-6 } do
    it("transforms lines of every length as the definition says, " .. dtype, function()
      nyx.manual_seed(3)
      for n = 1, 72 do
        for _, lines in ipairs { 1, 3, 33 } do
          local x = random({ lines, n }, dtype)
          local y = nyx.fft.fft(x)
          local close = bound * math.max(2, math.log(n) * 2)
          local what = ("n = %d, %d lines"):format(n, lines)
          assert(worst(y, defined(x, -1)) < close, what)
          assert(worst(nyx.fft.ifft(x) * n, defined(x, 1)) < close, what .. ", inverse")
          local columns = nyx.fft.fft(x:t():contiguous(), { dim = 1 })
          assert(worst(columns:t(), y) < close, what .. ", columns")
          local real = nyx.randn({ lines, n }, { dtype = dtype })
          local half = nyx.fft.rfft(real)
          local whole = defined(nyx.complex(real), -1)
          assert(worst(half, whole:narrow(2, 1, math.floor(n / 2) + 1)) < close, what .. ", real")
          local back = nyx.fft.irfft(half, { n = n })
          assert(worst(nyx.complex(back), nyx.complex(real)) < close, what .. ", back")
        end
      end
    end)
  end

  -- As many lanes as there are, or four, belong to each line of these.
  for dtype, bound in pairs { float64 = 2e-15, float32 = 1e-6 } do
    it("transforms lines of more numbers than lanes as the definition says, " .. dtype, function()
      nyx.manual_seed(5)
      for _, n in ipairs { 16, 32, 64, 100, 128, 208, 256, 288, 500, 512, 640, 1000, 1024, 1232 } do
        local close = bound * math.log(n) * 2
        for _, lines in ipairs { 1, 2, 5, 17 } do
          local what = ("n = %d, %d lines"):format(n, lines)
          local x = random({ lines, n }, dtype)
          local y = nyx.fft.fft(x)
          assert(worst(y, defined(x, -1)) < close, what)
          assert(worst(nyx.fft.ifft(x, { norm = "forward" }), defined(x, 1)) < close,
            what .. ", inverse")
          local real = nyx.randn({ lines, n }, { dtype = dtype })
          local half = nyx.fft.rfft(real, { norm = "forward" })
          local whole = defined(nyx.complex(real), -1):narrow(2, 1, math.floor(n / 2) + 1)
          assert(worst(half * n, whole) < close, what .. ", real")
          local back = nyx.fft.irfft(half, { n = n, norm = "forward" })
          assert(worst(nyx.complex(back), nyx.complex(real)) < close, what .. ", back")
        end
      end
    end)
  end

  it("transforms inner dimensions, and several at once, like rows", function()
    nyx.manual_seed(6)
    for _, dtype in ipairs { "float32", "float64" } do
      local close = dtype == "float32" and 2e-6 or 4e-15
      local shapes = { { 2, 8, 37 }, { 9, 30, 3 }, { 3, 30, 16 }, { 2, 64, 50 }, { 3, 128, 33 },
        { 75, 16, 18 }, { 70, 4, 15 }, { 17, 32, 64 }, { 8, 30, 100 } } -- and planes at a time
      for _, shape in ipairs(shapes) do
        local x = random(shape, dtype)
        local function rows(t, dim)
          return nyx.fft.fft(t:transpose(dim, -1):contiguous()):transpose(dim, -1)
        end
        local what = table.concat(shape, "x") .. " " .. dtype
        assert(worst(nyx.fft.fft(x, { dim = 2 }), rows(x, 2)) < close, what)
        assert(worst(nyx.fft.fft(x, { dim = 1 }), rows(x, 1)) < close, what)
        local all = rows(rows(rows(x, 3), 2), 1)
        assert(worst(nyx.fft.fftn(x), all) < close, what)
        assert(worst(nyx.fft.ifftn(nyx.fft.fftn(x)), x) < close, what .. ", back")
        local real = nyx.real(x):contiguous()
        local half = nyx.fft.rfftn(real)
        assert(worst(half, nyx.fft.fftn(real):narrow(3, 1, math.floor(shape[3] / 2) + 1)) < close,
          what .. ", real")
        local again = nyx.fft.irfftn(half, { s = shape })
        assert(worst(nyx.complex(again), nyx.complex(real)) < close, what .. ", real, back")
      end
    end
  end)

  it("gives what it keeps for the lengths of late back with nyx.memory_trim", function()
    nyx.fft.fft(random({ 2, 3 }, "float32")) -- what is made once
    nyx.memory_trim()
    collectgarbage()
    local before = nyx.memory().live
    local x = random({ 1, 7919 }, "float32")
    local y = nyx.fft.fft(x)
    x:release()
    y:release()
    assert(nyx.memory().live >= before + 7919 * 8)
    nyx.memory_trim()
    collectgarbage()
    assert(nyx.memory().live < before + 7919)
  end)

  it("transforms long lines, and such with large prime factors", function()
    nyx.manual_seed(4)
    for _, n in ipairs { 4096, 6561, 16384, 39366, 100000, 131072, 65537, 100003 } do
      local x = random({ 2, n }, "float64")
      local y = nyx.fft.fft(x)
      for _, k in ipairs { 0, 1, 1234, n - 1 } do
        local angle = (nyx.arange(0, n, 1, { dtype = "float64" }) * k):remainder(n)
        angle = angle * (-2 * math.pi / n)
        local root = nyx.polar(nyx.ones({ n }, { dtype = "float64" }), angle)
        local difference = (x * root):sum(2) - y:select(2, k + 1)
        assert(difference:abs():max():item() < 1e-11 * math.sqrt(n),
          ("n = %d, k = %d"):format(n, k))
      end
      assert(worst(nyx.fft.ifft(y), x) < 1e-14, "back, n = " .. n)
      local real = nyx.randn({ 2, n }, { dtype = "float64" })
      local half = nyx.fft.rfft(real)
      assert(worst(half, nyx.fft.fft(real):narrow(2, 1, math.floor(n / 2) + 1)) < 1e-14, "real")
      local back = nyx.fft.irfft(half, { n = n })
      assert(worst(nyx.complex(back), nyx.complex(real)) < 1e-14, "real, back")
    end
  end)

  it("gives the same bits for any number of threads", function()
    local before = nyx.get_num_threads()
    for _, shape in ipairs { { 50, 96 }, { 1, 40000 }, { 3, 101 }, { 75, 16, 18 } } do
      local x, first = random(shape, "float32"), nil
      for threads = 1, 4 do
        nyx.set_num_threads(threads)
        local y = nyx.fft.fftn(x, { dim = #shape == 3 and { 2, 3 } or { 2 } })
        first = first or y
        assert.is_true(y:equal(first))
      end
    end
    nyx.set_num_threads(before)
  end)

  it("keeps nan and infinity in their own line", function()
    local x = nyx.ones { 20, 8 }
    x[{ 3, 2 }] = 0 / 0
    x[{ 5, 1 }] = 1 / 0
    local finite = nyx.fft.rfft(x):isfinite():all(2):totable()
    for i = 1, 20 do assert.equal(i ~= 3 and i ~= 5, finite[i]) end
  end)

  it("takes empty batches and refuses empty lines", function()
    assert.same({ 0, 5 }, nyx.fft.fft(nyx.ones { 0, 5 }).shape)
    assert.same({ 0, 3 }, nyx.fft.rfft(nyx.ones { 0, 5 }).shape)
    assert.matches("fft: 'n' is number 0", message_of(nyx.fft.fft, nyx.ones { 2, 0 }))
    assert.matches("expected elements in the dimension",
      message_of(nyx.fft_from_real, nyx.ones { 2, 0 }, { dim = 2 }))
    assert.matches("fft: dimension 3 is out of range for a tensor of 2 dimensions",
      message_of(nyx.fft.fft, nyx.ones { 2, 2 }, { dim = 3 }))
    assert.matches("rfft: 'x' is complex64, expected real numbers",
      message_of(nyx.fft.rfft, random({ 3 }, "float32")))
    assert.matches("'norm' is string 'full', expected \"backward\", \"forward\" or \"ortho\"",
      message_of(nyx.fft.fft, nyx.ones { 3 }, { norm = "full" }))
    assert.matches("dimension 1 is named twice",
      message_of(nyx.fft.fftn, nyx.ones { 3, 2 }, { dim = { 1, -2 } }))
    assert.matches("has 1 sizes for 2 dimensions",
      message_of(nyx.fft.fftn, nyx.ones { 3, 2 }, { s = { 3 }, dim = { 1, 2 } }))
    assert.matches("unknown option 'size'", message_of(nyx.fft.fft, nyx.ones { 3 }, { size = 3 }))
  end)

  it("names frequencies", function()
    local function near(list, x)
      for i, v in ipairs(list) do assert(math.abs(v - x:totable()[i]) < 1e-6) end
      assert.equal(#list, x:numel())
    end
    near({ 0, 0.2, 0.4, -0.4, -0.2 }, nyx.fft.fftfreq(5))
    near({ 0, 1, 2, -3, -2, -1 }, nyx.fft.fftfreq(6, 1 / 6))
    near({ 0, 0.25, 0.5 }, nyx.fft.rfftfreq(4))
    near({ -3, -2, -1, 0, 1, 2 }, nyx.fft.fftshift(nyx.fft.fftfreq(6, 1 / 6)))
    near({ 0, 1, 2, -2, -1 }, nyx.fft.ifftshift(nyx.fft.fftshift(nyx.fft.fftfreq(5, 0.2))))
  end)
end)
