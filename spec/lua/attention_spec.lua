-- Attention beyond what spec/op and spec/peers call it with: lengths around the sizes of its
-- blocks, memory that grows with the length, results that no number of threads changes, queries
-- that see nothing, decoding; nn.MultiheadAttention and nn.KVCache.
local nyx = require "nyx"
local nn = nyx.nn

local sdpa = nyx.scaled_dot_product_attention

-- The same from products and softmax, which store all pairs.
local function composed(q, k, v, mask, causal)
  local group = math.floor(q:size(-3) / k:size(-3))
  k, v = k:repeat_interleave(group, -3), v:repeat_interleave(group, -3)
  local scores = q:matmul(k:transpose(-2, -1)) * q:size(-1) ^ -0.5
  if mask and mask.dtype == "bool" then
    scores = scores:masked_fill(mask:logical_not(), -math.huge)
  elseif mask then
    scores = scores + mask
  end
  if causal then
    local later = nyx.ones({ q:size(-2), k:size(-2) }, { dtype = "bool" }):triu(1)
    scores = scores:masked_fill(later, -math.huge)
  end
  return scores:softmax(-1):matmul(v)
end

local function differ(a, b)
  local most = (a:detach() - b:detach()):abs():max():item()
  return most == most and most or math.huge
end

local function leaves(dtype, batch, heads, key_heads, queries, keys, d, dv)
  local o = { dtype = dtype }
  return nyx.randn({ batch, heads, queries, d }, o):requires_grad_(),
    nyx.randn({ batch, key_heads, keys, d }, o):requires_grad_(),
    nyx.randn({ batch, keys, key_heads, dv }, o):transpose(2, 3):requires_grad_()
end

local function gradients(y, g, q, k, v)
  q.grad, k.grad, v.grad = nil, nil, nil
  y:backward(g)
  return { q.grad, k.grad, v.grad }
end

local masks = {
  none = function() end,
  flags = function(batch, _, queries, keys, o)
    local m = nyx.rand({ batch, 1, queries, keys }, o):gt(0.5)
    m:narrow(-1, 1, 1):fill_(1)
    return m
  end,
  keys = function(batch, _, _, keys, o)
    local m = nyx.rand({ batch, 1, 1, keys }, o):gt(0.3)
    m:narrow(-1, 1, 1):fill_(1)
    return m
  end,
  numbers = function(_, heads, queries, keys, o) return nyx.randn({ heads, queries, keys }, o) end,
}

describe("attention", function()
  -- batch, heads, heads of keys, queries, keys, d, dv
  for _, size in ipairs { { 1, 1, 1, 4, 3, 5, 2 }, { 2, 2, 1, 9, 130, 8, 8 },
    { 1, 4, 2, 33, 126, 64, 64 }, { 1, 1, 1, 127, 127, 5, 70 }, { 1, 2, 2, 140, 300, 64, 48 },
    { 1, 3, 3, 300, 257, 16, 16 }, { 1, 2, 1, 8, 1100, 64, 64 }, { 2, 1, 1, 1, 700, 3, 130 },
    { 1, 1, 1, 129, 1, 7, 7 }, { 5, 6, 6, 35, 40, 4, 4 }, { 1, 1, 1, 85, 100, 6, 6 },
    { 5, 12, 6, 35, 40, 4, 4 } } do
    local batch, heads, key_heads, queries, keys = size[1], size[2], size[3], size[4], size[5]
    it("equals its parts: " .. table.concat(size, " "), function()
      nyx.manual_seed(11)
      for _, kind in ipairs { { "float64", 1e-12 }, { "float32", 2e-5 } } do
        local dtype, bound = kind[1], kind[2]
        local q, k, v = leaves(dtype, batch, heads, key_heads, queries, keys, size[6], size[7])
        local g = nyx.randn({ batch, heads, queries, size[7] }, { dtype = dtype })
        for name, make in pairs(masks) do
          local mask = make(batch, heads, queries, keys, { dtype = dtype })
          for _, causal in ipairs { false, true } do
            local options = { attn_mask = mask, is_causal = causal }
            local got, want = sdpa(q, k, v, options), composed(q, k, v, mask, causal)
            local what = ("%s %s %s"):format(dtype, name, tostring(causal))
            assert(differ(got, want) < bound, what)
            local own, theirs = gradients(got, g, q, k, v), gradients(want, g, q, k, v)
            for i = 1, 3 do
              assert(differ(own[i], theirs[i]) < 10 * bound, ("%s, gradient %d"):format(what, i))
            end
          end
        end
      end
    end)
  end

  it("packs what it copies of some heads at a time", function()
    nyx.manual_seed(12)
    for _, size in ipairs { { 1, 66, 33, 9, 4096, 64, 64 }, { 1, 17, 17, 4096, 9, 64, 64 } } do
      local q, k, v = leaves("float32", (table.unpack or unpack)(size)) -- luacheck: ignore
      local got, want = sdpa(q, k, v), composed(q, k, v)
      assert(differ(got, want) < 1e-5)
      local own = gradients(got, nyx.ones_like(got), q, k, v)
      local theirs = gradients(want, nyx.ones_like(got), q, k, v)
      for i = 1, 3 do assert(differ(own[i], theirs[i]) < 1e-3, i) end
    end
  end)

  it("finds a great score wherever it stands", function()
    for _, n in ipairs { 1, 2, 3, 5, 127, 130, 131 } do
      local q, v = nyx.ones(33, 1), nyx.arange(1, n + 1):unsqueeze(2):float()
      for p = 1, n do
        local k = nyx.zeros(n, 1)
        k[p]:fill_(200) -- e^200 is no float32, and beside it e^0 is nothing
        assert.equal(0, differ(sdpa(q, k, v, { scale = 1 }), nyx.full({ 33, 1 }, p)))
      end
    end
  end)

  it("takes memory that grows with the length", function()
    local size = { 1, 12, 4096, 64 }
    local q, k, v = nyx.randn(size), nyx.randn(size), nyx.randn(size)
    for _, x in ipairs { q, k, v } do x:requires_grad_() end
    collectgarbage()
    nyx.memory_reset_peak()
    local before = nyx.memory().live
    sdpa(q, k, v, { is_causal = true }):sum():backward()
    local used = nyx.memory().peak - before
    assert(used < 160e6, ("%.0f MB"):format(used / 1e6)) -- all pairs: 805 MB
  end)

  it("does not depend on the number of threads", function()
    nyx.manual_seed(2)
    local results = {}
    local threads = nyx.get_num_threads()
    local shapes = { { 1, 2, 1, 300, 400, 16, 16 }, { 2, 4, 2, 2, 3000, 32, 32 },
      { 6, 6, 6, 70, 70, 8, 8 }, { 2, 6, 6, 300, 200, 16, 16 },
      { 1, 12, 12, 500, 400, 8, 40 } }
    local inputs = {}
    for i, s in ipairs(shapes) do
      inputs[i] = { leaves("float32", (table.unpack or unpack)(s)) } -- luacheck: ignore
    end
    for run, n in ipairs { 1, 2, 5 } do
      nyx.set_num_threads(n)
      results[run] = {}
      for i, x in ipairs(inputs) do
        local y = sdpa(x[1], x[2], x[3], { is_causal = i ~= 2 })
        local all = gradients(y, nyx.ones_like(y), x[1], x[2], x[3])
        all[4] = y:detach()
        for _, t in ipairs(all) do table.insert(results[run], t) end
      end
    end
    nyx.set_num_threads(threads)
    for run = 2, 3 do
      for i, t in ipairs(results[1]) do assert(t:eq(results[run][i]):all():item(), i) end
    end
  end)

  it("gives 0 and no gradient to a query that sees nothing", function()
    for _, queries in ipairs { 3, 20 } do -- taken one by one, and in blocks
      local q, k, v = leaves("float64", 1, 2, 2, queries, 6, 4, 3)
      local mask = nyx.ones({ queries, 6 }, { dtype = "bool" })
      mask[2] = false
      for _, m in ipairs { mask, nyx.zeros({}, { dtype = "float64" })
        :masked_fill(mask:logical_not(), -math.huge) } do
        local y = sdpa(q, k, v, { attn_mask = m })
        assert.equal(0, y[1][1][2]:abs():max():item())
        gradients(y, nyx.ones_like(y), q, k, v)
        assert.equal(0, q.grad:select(3, 2):abs():max():item())
        for _, x in ipairs { q, k, v } do assert(x.grad:isnan():any():item() == false) end
      end
      local none = sdpa(q, k:narrow(3, 1, 0), v:narrow(3, 1, 0))
      assert.equal(0, none:abs():max():item())
    end
  end)

  it("says of a query that sees nothing that its log-sum-exp is infinite", function()
    nyx.manual_seed(14)
    for _, dtype in ipairs { "float64", "float32" } do
      for _, queries in ipairs { 3, 40 } do -- one by one, in tiles
        local q, k, v = leaves(dtype, 1, 2, 2, queries, 20, 8, 5)
        local mask = nyx.ones({ queries, 20 }, { dtype = "bool" })
        mask[2] = false
        local _, lse = nyx.attention(q, k, v, { attn_mask = mask })
        assert.equal(math.huge, lse:select(-1, 2):min():item())
        local scores = q:matmul(k:transpose(-2, -1)) * 8 ^ -0.5
        local other = nyx.arange(3, queries + 1, { dtype = "int64" })
        assert(differ(lse:index_select(other, -1), scores:logsumexp(-1):index_select(other, -1))
          < (dtype == "float64" and 1e-13 or 1e-5))
      end
    end
  end)

  it("sees up to an offset when causal, backward too", function()
    nyx.manual_seed(5)
    -- queries, keys, offset, d; the last of several ranges, tiles and blocks
    for _, size in ipairs { { 1, 1300, 1299, 64 }, { 3, 1300, 600, 33 }, { 8, 40, 32, 128 },
      { 5, 9, 2, 3 }, { 5, 9, -2, 3 }, { 150, 300, 150, 16 }, { 150, 300, 7, 16 },
      { 150, 300, 131, 16 }, { 300, 150, -90, 16 }, { 130, 130, -200, 8 }, { 2, 9, 50, 4 } } do
      local queries, keys, offset = size[1], size[2], size[3]
      local q, k, v = leaves("float64", 1, 6, 2, queries, keys, size[4], size[4])
      local mask = nyx.ones({ queries, keys }, { dtype = "bool" }):tril(offset)
      local got = sdpa(q, k, v, { is_causal = true, offset = offset })
      local want = sdpa(q, k, v, { attn_mask = mask })
      local what = table.concat(size, " ")
      assert(differ(got, want) < 1e-13, what)
      local g = nyx.randn(got.shape, { dtype = "float64" })
      local own, theirs = gradients(got, g, q, k, v), gradients(want, g, q, k, v)
      for i = 1, 3 do assert(differ(own[i], theirs[i]) < 1e-12, what .. ", gradient " .. i) end
    end
  end)

  it("reads few keys and values of half types in place", function()
    nyx.manual_seed(6)
    local threads = nyx.get_num_threads()
    for _, dtype in ipairs { "float16", "bfloat16" } do
      for _, size in ipairs { { 1, 8, 2, 1, 1100, 128, 64 }, { 2, 3, 1, 2, 70, 7, 33 },
        { 1, 7, 1, 1, 90, 56, 24 } } do
        local batch, heads, key_heads, queries, keys, d, dv = size[1], size[2], size[3], size[4],
          size[5], size[6], size[7]
        local q = nyx.randn(batch, heads, queries, d):to(dtype)
        local k = nyx.randn(batch, key_heads, keys, d):to(dtype)
        local v = nyx.randn(batch, keys, key_heads, dv):to(dtype):transpose(2, 3)
        local want = composed(q:double(), k:double(), v:double())
        for _, n in ipairs { 1, 3 } do
          nyx.set_num_threads(n)
          local y = sdpa(q, k, v)
          assert.equal(dtype, y.dtype)
          assert(differ(y:double(), want) < (dtype == "float16" and 1e-3 or 8e-3), dtype)
          assert.equal(0, differ(y, sdpa(q, k:clone(), v:contiguous())))
        end
      end
    end
    nyx.set_num_threads(threads)
  end)

  it("decodes what it gives for all queries at once", function()
    local q, k, v = leaves("float32", 1, 4, 2, 40, 40, 16, 16)
    local all = sdpa(q, k, v, { is_causal = true })
    for t = 1, 40, 13 do
      local one = sdpa(q:narrow(3, t, 1), k:narrow(3, 1, t), v:narrow(3, 1, t))
      assert(differ(one, all:narrow(3, t, 1)) < 1e-5, t)
    end
  end)

  it("computes half types in float32", function()
    local q, k, v = leaves("float32", 1, 2, 2, 20, 30, 8, 8)
    for _, dtype in ipairs { "float16", "bfloat16" } do
      local a, b, c = q:detach():to(dtype), k:detach():to(dtype), v:detach():to(dtype)
      for _, x in ipairs { a, b, c } do x:requires_grad_() end
      local y = sdpa(a, b, c)
      assert.equal(dtype, y.dtype)
      assert(differ(y:to "float32", sdpa(q, k, v)) < 0.05)
      y:sum():backward()
      assert.equal(dtype, a.grad.dtype)
    end
  end)

  it("refuses what does not fit", function()
    local function message(...) return select(2, pcall(sdpa, ...)) end
    local x = nyx.zeros(2, 4, 5, 3)
    assert.matches("query %(2x4x5x3%), key %(2x3x5x3%).*multiple of key heads",
      message(x, nyx.zeros(2, 3, 5, 3), nyx.zeros(2, 3, 5, 3)))
    assert.matches("do not fit", message(x, x, nyx.zeros(2, 4, 6, 3)))
    assert.matches("do not fit", message(nyx.zeros(3), x, x))
    assert.matches("'key' is float64, expected float32", message(x, x:to "float64", x))
    assert.matches("'attn_mask' has shape %(5x6%)",
      message(x, x, x, { attn_mask = nyx.zeros(5, 6) }))
    assert.matches("'attn_mask' is int64, expected bool or a float dtype",
      message(x, x, x, { attn_mask = nyx.zeros({ 5, 5 }, { dtype = "int64" }) }))
  end)
end)

describe("nn.MultiheadAttention", function()
  it("names its parameters like PyTorch", function()
    local names = {}
    for name in nn.MultiheadAttention(6, 2):named_parameters() do names[#names + 1] = name end
    assert.same({ "in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias" }, names)
    names = {}
    for name in nn.MultiheadAttention(6, 2, { kdim = 3, bias = false }):named_parameters() do
      names[#names + 1] = name
    end
    assert.same({ "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight" }, names)
  end)

  it("gives the same with and without the matrix of weights", function()
    local layer, x = nn.MultiheadAttention(8, 2, { dtype = "float64" }),
      nyx.randn({ 2, 5, 8 }, { dtype = "float64" })
    local padding = nyx.tensor { { false, false, false, false, true }, { false, false, true, true,
      true } }
    local options = { key_padding_mask = padding, is_causal = true }
    local y = layer(x, x, x, options)
    options.need_weights = true
    local same, weights = layer(x, x, x, options)
    assert(differ(y, same) < 1e-12)
    assert.same({ 2, 5, 5 }, weights.shape)
    assert(differ(weights:sum(-1), nyx.ones({ 2, 5 }, { dtype = "float64" })) < 1e-12)
    options.average_attn_weights = false
    assert.same({ 2, 2, 5, 5 }, select(2, layer(x, x, x, options)).shape)
    assert(differ(layer(x, x:clone(), x, { is_causal = true }), layer(x, nil, nil,
      { is_causal = true })) < 1e-12)
    assert(differ(layer(x[1], x[1], x[1]), layer(x)[1]) < 1e-12)
  end)

  it("drops weights in training only", function()
    local layer, x = nn.MultiheadAttention(8, 2, { dropout = 0.5 }), nyx.randn(1, 6, 8)
    nyx.manual_seed(1)
    assert(differ(layer(x), layer(x)) > 0)
    layer:eval()
    assert.equal(0, differ(layer(x), layer(x)))
  end)

  it("decodes with a cache what it gives for all positions at once", function()
    nyx.manual_seed(7)
    for _, kind in ipairs { { "float64", 1e-12 }, { "float32", 1e-5 } } do
      for _, kv_heads in ipairs { 4, 2, 1 } do
        local layer = nn.MultiheadAttention(32, 4, { dtype = kind[1], num_kv_heads = kv_heads,
          rotary = nn.RotaryEmbedding(8) })
        local x = nyx.randn({ 2, 40, 32 }, { dtype = kind[1] })
        nyx.no_grad(function()
          local all = layer(x, nil, nil, { is_causal = true })
          local cache = nn.KVCache(2, kv_heads, 4, 8, { dtype = kind[1], grow = true })
          local at, parts = 1, {}
          for _, n in ipairs { 17, 1, 1, 3, 1, 9, 1, 7 } do -- many at once and one at a time
            local options = { is_causal = true, cache = cache, need_weights = n == 3 }
            parts[#parts + 1] = layer(x:narrow(2, at, n), nil, nil, options)
            at = at + n
          end
          assert.equal(40, cache.length)
          assert(differ(nyx.cat(parts, 2), all) < kind[2])
          cache:truncate(39)
          assert(differ(layer(x:narrow(2, 40, 1), nil, nil, { is_causal = true, cache = cache }),
            all:narrow(2, 40, 1)) < kind[2])
        end)
      end
    end
  end)

  it("is, with heads in groups, the layer whose groups have equal keys", function()
    local o = { dtype = "float64" }
    local few = nn.MultiheadAttention(8, 4, { num_kv_heads = 2, dtype = "float64" })
    local all, x = nn.MultiheadAttention(8, 4, o), nyx.randn({ 2, 5, 8 }, o)
    nyx.no_grad(function()
      local parts = { few.in_proj_weight:narrow(1, 1, 8) }
      for i = 0, 1 do
        parts[i + 2] = few.in_proj_weight:narrow(1, 9 + 4 * i, 4):reshape(2, 1, 2, 8)
          :expand(2, 2, 2, 8):reshape(8, 8)
      end
      all.in_proj_weight:copy_(nyx.cat(parts, 1))
      all.out_proj:load_state_dict(few.out_proj:state_dict())
    end)
    assert(differ(few(x), all(x)) < 1e-12)
    assert(differ(few(x, x:clone(), x), all(x)) < 1e-12)
    assert(differ(few(x, nil, nil, { need_weights = true }), all(x)) < 1e-12)
  end)

  it("is saved and loaded", function()
    local layer = nn.MultiheadAttention(4, 2)
    local path = os.tmpname()
    nyx.save(path, layer)
    local x = nyx.randn(1, 3, 4)
    assert.equal(0, differ(layer(x), nyx.load(path)(x)))
    os.remove(path)
  end)

  it("refuses what does not fit", function()
    assert.matches("multiple of 'num_heads', 3", select(2, pcall(nn.MultiheadAttention, 4, 3)))
    assert.matches("unknown option", select(2, pcall(nn.MultiheadAttention, 4, 2,
      { add_bias_kv = true })))
    assert.matches("'num_kv_heads' is 3, expected a divisor of 'num_heads', 4",
      select(2, pcall(nn.MultiheadAttention, 8, 4, { num_kv_heads = 3 })))
    local layer, x = nn.MultiheadAttention(4, 2), nyx.zeros(2, 3, 4)
    assert.matches("'key_padding_mask' is .*expected %(batch, keys%), here 2x3",
      select(2, pcall(layer, x, x, x, { key_padding_mask = nyx.zeros(3, 2) })))
    assert.matches("'attn_mask' is ", select(2, pcall(layer, x, x, x,
      { attn_mask = nyx.zeros(3) })))
  end)
end)

describe("nn.KVCache", function()
  local function part(n) return nyx.randn(2, 3, n, 4), nyx.randn(2, 3, n, 5) end

  it("gives views of what was appended, in place", function()
    local cache = nn.KVCache(2, 3, 6, 4, { value_features = 5 })
    local memory = cache.keys
    local k1, v1 = part(2)
    cache:append(k1, v1)
    local k2, v2 = part(4)
    local k, v = cache:append(k2, v2)
    assert.equal(0, differ(k, nyx.cat({ k1, k2 }, 3)))
    assert.equal(0, differ(v, nyx.cat({ v1, v2 }, 3)))
    assert(rawequal(memory, cache.keys))
    k:narrow(3, 1, 1):zero_()
    assert.equal(0, cache.keys:narrow(3, 1, 1):abs():max():item())
    local k3, v3 = part(1)
    k, v = cache:truncate(1):append(k3, v3)
    assert.same({ 2, 3, 2, 4 }, k.shape)
    assert.equal(0, differ(v, nyx.cat({ v1:narrow(3, 1, 1), v3 }, 3)))
  end)

  it("grows when asked to", function()
    local cache, k1, v1 = nn.KVCache(2, 3, 2, 4, { value_features = 5, grow = true }), part(2)
    cache:append(k1, v1)
    local k2, v2 = part(7)
    local k, v = cache:append(k2, v2)
    assert.equal(16, cache.max_length)
    assert.equal(0, differ(k, nyx.cat({ k1, k2 }, 3)))
    assert.equal(0, differ(v, nyx.cat({ v1, v2 }, 3)))
  end)

  it("refuses what does not fit", function()
    local cache = nn.KVCache(2, 3, 4, 4)
    local x = nyx.zeros(2, 3, 2, 4)
    local function message(...) return select(2, pcall(cache.append, cache, ...)) end
    assert.matches("'keys' is a tensor of shape %(2x2x2x4%) of float32, expected %(2, 3, length, "
      .. "4%) of float32", message(nyx.zeros(2, 2, 2, 4), x))
    assert.matches("'values' is .* of float64", message(x, x:double()))
    assert.matches("2 keys and 1 values", message(x, x:narrow(3, 1, 1)))
    assert.matches("requires a gradient.*within nyx.no_grad",
      message(x:clone():requires_grad_(), x))
    cache:append(x, x)
    assert.matches("5 positions are needed and there is room for 4; make it longer",
      message(nyx.zeros(2, 3, 3, 4), nyx.zeros(2, 3, 3, 4)))
    assert.equal(2, cache.length)
    assert.matches("truncate to 3 positions, but only 2 are filled",
      select(2, pcall(cache.truncate, cache, 3)))
  end)
end)
