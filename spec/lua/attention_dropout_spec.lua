-- Attention with dropout: the weights that a seed drops are the same forward and backward, in every
-- way that attention is computed and transformed; how many there are, and what they cost.
-- spec/c/attention_test.c compares bits with Philox on every path of the CPU.
local nyx = require "nyx"
local nn, func = nyx.nn, nyx.func

local sdpa = nyx.scaled_dot_product_attention

local function differ(a, b)
  local most = (a:detach() - b:detach()):abs():max():item()
  return most == most and most or math.huge
end

local function with(options, more)
  local all = {}
  for _, o in ipairs { options or {}, more } do
    for name, value in pairs(o) do all[name] = value end
  end
  return all
end

-- The weights before dropout.
local function weights_of(q, k, options)
  if q:dim() > 2 then k = k:repeat_interleave(math.floor(q:size(-3) / k:size(-3)), -3) end
  local scores = q:matmul(k:transpose(-2, -1)) * q:size(-1) ^ -0.5
  local mask = options.attn_mask
  if mask and mask.dtype == "bool" then
    scores = scores:masked_fill(mask:logical_not(), -math.huge)
  elseif mask then
    scores = scores + mask
  end
  if options.is_causal then
    local seen = nyx.ones({ q:size(-2), k:size(-2) }, { dtype = "bool" })
      :tril(options.offset or 0)
    scores = scores:masked_fill(seen:logical_not(), -math.huge)
  end
  return scores:softmax(-1)
end

-- What the next call multiplies the weights by: its values are then the unit vectors, and the
-- weights of no scores are all the same.
local function drops_of(seed, q, k, p)
  local keys = k:size(-2)
  local one = nyx.eye(keys, { dtype = q.dtype }):expand(k:dim() == 2 and { keys, keys }
    or { k:size(1), k:size(2), keys, keys })
  nyx.manual_seed(seed)
  local y = sdpa(nyx.zeros_like(q), nyx.zeros_like(k), one, { dropout_p = p }) * keys
  local wrong = nyx.where(y:gt(0), y - 1 / (1 - p), y)
  assert(wrong:abs():max():item() < (q.dtype == "float64" and 1e-12 or 1e-4))
  return nyx.where(y:gt(0), nyx.full_like(y, 1 / (1 - p)), y)
end

local function composed(q, k, v, options, drops)
  if q:dim() > 2 then v = v:repeat_interleave(math.floor(q:size(-3) / v:size(-3)), -3) end
  return (weights_of(q, k, options) * drops):matmul(v)
end

local function leaves(dtype, size)
  local batch, heads, key_heads, queries, keys, d, dv = (table.unpack or unpack)(size) -- luacheck: ignore
  local o = { dtype = dtype }
  return nyx.randn({ batch, heads, queries, d }, o):requires_grad_(),
    nyx.randn({ batch, key_heads, keys, d }, o):requires_grad_(),
    nyx.randn({ batch, keys, key_heads, dv }, o):transpose(2, 3):requires_grad_()
end

local function gradients(y, g, ...)
  local found = {}
  for _, x in ipairs { ... } do x.grad = nil end
  y:backward(g)
  for i, x in ipairs { ... } do found[i] = x.grad end
  return found
end

local function seeded(seed, ...)
  nyx.manual_seed(seed)
  return sdpa(...)
end

describe("attention with dropout", function()
  -- batch, heads, heads of keys, queries, keys, d, dv
  for _, size in ipairs { { 1, 1, 1, 4, 3, 5, 2 }, { 2, 2, 1, 9, 130, 8, 8 },
    { 1, 4, 2, 33, 126, 64, 64 }, { 1, 1, 1, 127, 127, 5, 70 }, { 1, 2, 2, 140, 300, 64, 48 },
    { 1, 3, 3, 300, 257, 16, 16 }, { 1, 2, 1, 8, 1100, 64, 64 }, { 2, 1, 1, 1, 700, 3, 130 },
    { 1, 1, 1, 129, 1, 7, 7 }, { 5, 6, 6, 35, 40, 4, 4 } } do
    local batch, heads, queries, keys = size[1], size[2], size[4], size[5]
    it("equals its parts: " .. table.concat(size, " "), function()
      for _, kind in ipairs { { "float64", 1e-12 }, { "float32", 2e-5 } } do
        local dtype, bound = kind[1], kind[2]
        local o = { dtype = dtype }
        nyx.manual_seed(21)
        local q, k, v = leaves(dtype, size)
        local g = nyx.randn({ batch, heads, queries, size[7] }, o)
        local flags = nyx.rand({ batch, 1, queries, keys }, o):gt(0.5)
        flags:narrow(-1, 1, 1):fill_(1)
        local numbers = nyx.randn({ heads, queries, keys }, o)
        for i, options in ipairs { {}, { is_causal = true }, { attn_mask = flags },
          { attn_mask = numbers, is_causal = true, offset = 2 } } do
          local p = ({ 0.1, 0.5, 0.7, 0.3 })[i]
          local drops = drops_of(30 + i, q, k, p)
          local got = seeded(30 + i, q, k, v, with(options, { dropout_p = p }))
          local want = composed(q, k, v, options, drops)
          assert(differ(got, want) < bound, ("%s %d"):format(dtype, i))
          local own, theirs = gradients(got, g, q, k, v), gradients(want, g, q, k, v)
          for n = 1, 3 do
            local what = ("%s %d, gradient %d"):format(dtype, i, n)
            assert(differ(own[n], theirs[n]) < 20 * bound, what)
          end
        end
      end
    end)
  end

  it("drops the share that was asked for, of every head, query and key", function()
    nyx.manual_seed(1)
    for _, p in ipairs { 0.001, 0.1, 0.5, 0.9 } do
      local seeds = nyx.randint(0, 2 ^ 53, { 4 })
      local drops = nyx.attention_dropout_mask(seeds, { dropout_p = p, queries = 512, keys = 640,
        dtype = "float64" }):eq(0):double()
      local function far(t, n) -- in standard deviations, of means of n
        return (t - p):abs():max():item() / (p * (1 - p) / n) ^ 0.5
      end
      assert(far(drops:mean(), 4 * 512 * 640) < 4, p)
      assert(far(drops:mean { 2, 3 }, 512 * 640) < 4.5, p)
      assert(far(drops:mean { 1, 2 }, 4 * 512) < (p < 0.01 and 9 or 6), p)
      assert(far(drops:mean { 1, 3 }, 4 * 640) < (p < 0.01 and 9 or 6), p)
      -- Both of two: heads, queries, keys, the halves of a number, numbers of a block.
      local function both(a, b)
        local want = p * p
        return math.abs((a * b):mean():item() - want)
          / (want * (1 - want) / a:numel()) ^ 0.5
      end
      assert(both(drops[1], drops[2]) < 4.5, p)
      for _, step in ipairs { 1, 2, 8, 16, 32, 64, 128 } do
        local n = 640 - step
        assert(both(drops:narrow(3, 1, n), drops:narrow(3, 1 + step, n)) < 4.5, p)
      end
      for _, step in ipairs { 1, 2, 8, 16, 64 } do
        local n = 512 - step
        assert(both(drops:narrow(2, 1, n), drops:narrow(2, 1 + step, n)) < 4.5, p)
      end
    end
  end)

  it("drops few where few are asked for", function()
    nyx.manual_seed(2)
    local seeds = nyx.randint(0, 2 ^ 53, { 1024 })
    local drops = nyx.attention_dropout_mask(seeds, { dropout_p = 2 ^ -18, queries = 64,
      keys = 64 })
    local count = drops:eq(0):sum():item() -- 16, and heads differ
    assert(count > 3 and count < 40, count)
  end)

  it("draws from the context's random numbers, once per call", function()
    local q, k, v = leaves("float32", { 2, 2, 2, 20, 30, 4, 4 })
    local options = { dropout_p = 0.5 }
    nyx.manual_seed(3)
    local first, second, after = sdpa(q, k, v, options), sdpa(q, k, v, options), nyx.rand(1):item()
    assert(differ(first, second) > 0.01)
    nyx.manual_seed(3)
    assert(first:equal(sdpa(q, k, v, options)) and second:equal(sdpa(q, k, v, options)))
    assert.equal(after, nyx.rand(1):item())
    local state = nyx.get_rng_state()
    assert(sdpa(q, k, v, { dropout_p = 0 }):equal(sdpa(q, k, v)))
    assert.same(state, nyx.get_rng_state())
  end)

  it("gives zeros where all is dropped", function()
    for _, queries in ipairs { 2, 20 } do
      local q, k, v = leaves("float32", { 1, 2, 2, queries, 70, 4, 4 })
      local y = sdpa(q, k, v, { dropout_p = 1 })
      assert.equal(0, y:abs():max():item())
      for _, g in ipairs(gradients(y, nyx.ones_like(y), q, k, v)) do
        assert.equal(0, g:abs():max():item())
      end
    end
  end)

  it("takes any strides, and matrices without heads", function()
    nyx.manual_seed(4)
    local o = { dtype = "float64" }
    local q, k, v = nyx.randn({ 10, 6 }, o), nyx.randn({ 13, 6 }, o), nyx.randn({ 13, 3 }, o)
    local drops = drops_of(5, q, k, 0.4)
    assert(differ(seeded(5, q, k, v, { dropout_p = 0.4 }), composed(q, k, v, {}, drops)) < 1e-12)
    local seeds = nyx.randint(0, 2 ^ 53, { 3, 2 })
    local x = nyx.randn({ 2, 3, 12, 5 }, o):transpose(1, 2)
    local y = nyx.attention(x, x, x, nil, seeds, { dropout_p = 0.4 })
    local z = nyx.attention(x:contiguous(), x, x, nil, seeds:transpose(1, 2):contiguous()
      :transpose(1, 2), { dropout_p = 0.4 })
    assert(differ(y, z) < 1e-14)
  end)

  it("does not depend on the number of threads", function()
    local threads, results = nyx.get_num_threads(), {}
    nyx.manual_seed(6)
    local inputs = {}
    for i, size in ipairs { { 1, 2, 1, 300, 400, 16, 16 }, { 2, 4, 2, 2, 3000, 32, 32 },
      { 6, 6, 6, 70, 70, 8, 8 }, { 2, 6, 6, 300, 200, 16, 16 } } do
      inputs[i] = { leaves("float32", size) }
    end
    for run, n in ipairs { 1, 2, 5 } do
      nyx.set_num_threads(n)
      results[run] = {}
      for i, x in ipairs(inputs) do
        local y = seeded(i, x[1], x[2], x[3], { is_causal = i ~= 2, dropout_p = 0.2 })
        local all = gradients(y, nyx.ones_like(y), x[1], x[2], x[3])
        all[4] = y:detach()
        for _, t in ipairs(all) do table.insert(results[run], t) end
      end
    end
    nyx.set_num_threads(threads)
    for run = 2, 3 do
      for i, t in ipairs(results[1]) do assert(t:equal(results[run][i]), i) end
    end
  end)

  it("takes memory that grows with the length", function()
    local size = { 1, 12, 4096, 64 }
    local q, k, v = nyx.randn(size), nyx.randn(size), nyx.randn(size)
    for _, x in ipairs { q, k, v } do x:requires_grad_() end
    collectgarbage()
    nyx.memory_reset_peak()
    local before = nyx.memory().live
    sdpa(q, k, v, { is_causal = true, dropout_p = 0.1 }):sum():backward()
    local used = nyx.memory().peak - before
    assert(used < 160e6, ("%.0f MB"):format(used / 1e6)) -- all pairs: 805 MB
  end)

  it("honours it in half types, and in mixed precision", function()
    nyx.manual_seed(7)
    for _, dtype in ipairs { "float16", "bfloat16" } do
      for _, queries in ipairs { 3, 40 } do
        local q, k, v = leaves("float32", { 1, 4, 2, queries, 150, 16, 16 })
        local drops = drops_of(8, q, k, 0.3)
        local low = {}
        for i, x in ipairs { q, k, v } do low[i] = x:detach():to(dtype) end
        local want = composed(low[1]:float(), low[2]:float(), low[3]:float(), {}, drops)
        local got = seeded(8, low[1], low[2], low[3], { dropout_p = 0.3 })
        assert.equal(dtype, got.dtype)
        assert(differ(got:float(), want) < (dtype == "float16" and 3e-3 or 2e-2))
        local cast = nyx.autocast({ dtype = dtype }, function()
          return seeded(8, q, k, v, { dropout_p = 0.3 })
        end)
        assert(cast:equal(got))
      end
    end
  end)

  it("has gradients by differences, of both orders, of a mask, too", function()
    nyx.manual_seed(9)
    local q, k, v = leaves("float64", { 1, 2, 1, 4, 5, 3, 2 })
    local mask = nyx.randn({ 4, 5 }, { dtype = "float64" }):requires_grad_()
    local function f(a, b, c, m)
      return seeded(10, a, b, c, { attn_mask = m, dropout_p = 0.4, is_causal = true, offset = 2 })
    end
    assert(nyx.gradcheck(f, { q, k, v:contiguous():detach():requires_grad_(), mask }))
    assert(nyx.gradgradcheck(f, { q, k, v:contiguous():detach():requires_grad_(), mask }))
  end)

  it("has the gradients of higher order that its parts have", function()
    nyx.manual_seed(11)
    local q, k, v = leaves("float64", { 1, 2, 2, 10, 70, 4, 4 })
    local drops = drops_of(12, q, k, 0.25)
    local function second(y)
      local g = nyx.grad(y:square():sum(), { q, k, v }, { create_graph = true })
      return nyx.grad(g[1]:sin():sum() + g[2]:square():sum() + g[3]:sum(), { q, k, v })
    end
    local own = second(seeded(12, q, k, v, { dropout_p = 0.25 }))
    local theirs = second(composed(q, k, v, {}, drops))
    for i = 1, 3 do assert(differ(own[i], theirs[i]) < 1e-9, i) end
  end)

  it("drops the same in forward mode", function()
    nyx.manual_seed(13)
    local o = { dtype = "float64" }
    local q, k, v = nyx.randn({ 2, 9, 4 }, o), nyx.randn({ 2, 7, 4 }, o), nyx.randn({ 2, 7, 3 }, o)
    local t = nyx.randn({ 2, 9, 4 }, o)
    local function f(a) return seeded(14, a, k, v, { dropout_p = 0.3 }) end
    local y, dy = func.jvp(f, { q }, { t })
    assert(differ(y, f(q)) < 1e-14)
    local h = 1e-6
    assert(differ(dy, (f(q + t * h) - f(q - t * h)) / (2 * h)) < 1e-8)
  end)

  it("follows vmap's randomness, like other random ops", function()
    nyx.manual_seed(15)
    local o = { dtype = "float64" }
    local q, k, v = nyx.randn({ 3, 2, 9, 4 }, o), nyx.randn({ 2, 7, 4 }, o), nyx.eye(7, o)
      :expand { 2, 7, 7 }
    local function f(a) return sdpa(a, k, v, { dropout_p = 0.5 }) end
    assert.matches("scaled_dot_product_attention: a random op inside vmap: say with its option "
      .. "randomness", select(2, pcall(func.vmap(f), q)))
    local function drops(randomness, ...)
      nyx.manual_seed(16)
      return func.vmap(..., { randomness = randomness })(q):eq(0)
    end
    local same = drops("same", f)
    assert(same[1]:equal(same[2]) and same[2]:equal(same[3]))
    nyx.manual_seed(16)
    assert(f(q[1]):eq(0):equal(same[1]))
    local each = drops("different", f)
    assert(not each[1]:equal(each[2]) and not each[2]:equal(each[3]))
    local function unmapped(a) return f(nyx.zeros_like(q[1])) + a * 0 end
    each = drops("different", function(a) return unmapped(a:sum()) end)
    assert(not each[1]:equal(each[2]))
    -- Gradients of entries, as one by one.
    local seeds = nyx.randint(0, 2 ^ 53, { 3, 2 })
    local function loss(a, s)
      return nyx.attention(a, k, v, nil, s, { dropout_p = 0.5 }):square():sum()
    end
    local all = func.vmap(func.grad(loss))(q, seeds)
    for e = 1, 3 do assert(differ(all[e], func.grad(loss)(q[e], seeds[e])) < 1e-12) end
  end)

  it("drops the same when a checkpoint computes it again", function()
    nyx.manual_seed(17)
    local q, k, v = leaves("float32", { 1, 2, 2, 20, 30, 4, 4 })
    local function f(a, b, c) return sdpa(a, b, c, { dropout_p = 0.5 }) end
    nyx.manual_seed(18)
    local own = gradients(f(q, k, v):sum(), nil, q, k, v)
    nyx.manual_seed(18)
    local again = gradients(nyx.checkpoint(f, q, k, v):sum(), nil, q, k, v)
    for i = 1, 3 do assert(own[i]:equal(again[i])) end
  end)

  it("says what does not fit", function()
    local x = nyx.zeros(2, 5, 3)
    local function message(...) return select(2, pcall(...)) end
    for _, p in ipairs { -0.1, 1.5, 0 / 0 } do
      assert.matches("scaled_dot_product_attention: 'dropout_p' is .*, expected 0 to 1",
        message(sdpa, x, x, x, { dropout_p = p }))
      assert.matches("'dropout_p' is .*, expected 0 to 1", message(nyx.attention_dropout_mask,
        nyx.zeros({ 2 }, { dtype = "int64" }), { dropout_p = p, queries = 1, keys = 1 }))
    end
    local o = { dropout_p = 0.5 }
    assert.matches("attention: 'seeds' is missing", message(nyx.attention, x, x, x, o))
    assert.matches("'seeds' is float32, expected int64",
      message(nyx.attention, x, x, x, nil, nyx.zeros(2), o))
    assert.matches("'seeds' has shape %(3%), expected %(2%)",
      message(nyx.attention, x, x, x, nil, nyx.zeros({ 3 }, { dtype = "int64" }), o))
    assert.matches("'queries' is %-1, expected at least 0", message(nyx.attention_dropout_mask,
      nyx.zeros({ 2 }, { dtype = "int64" }), { dropout_p = 0.5, queries = -1, keys = 1 }))
  end)
end)

describe("attention with dropout on a device that has no attention", function()
  it("says so", function()
    local found, x = pcall(function() return nyx.zeros(2, 5, 3):to "opencl" end)
    if not found then return pending(x) end
    assert.matches("scaled_dot_product_attention: has no kernel on opencl",
      select(2, pcall(sdpa, x, x, x, { dropout_p = 0.5 })))
  end)
end)

describe("nn.MultiheadAttention with dropout", function()
  it("drops weights in training, never storing all of them", function()
    nyx.manual_seed(19)
    local layer, x = nn.MultiheadAttention(32, 2, { dropout = 0.1 }), nyx.randn(1, 4096, 32)
    collectgarbage()
    nyx.memory_reset_peak()
    local before = nyx.memory().live
    layer(x, nil, nil, { is_causal = true }):sum():backward()
    local used = nyx.memory().peak - before
    assert(used < 30e6, ("%.0f MB"):format(used / 1e6)) -- all pairs: 134 MB
  end)

  it("is what its parts are", function()
    nyx.manual_seed(20)
    local o = { dtype = "float64" }
    local layer = nn.MultiheadAttention(8, 4, { dropout = 0.3, num_kv_heads = 2,
      dtype = "float64" })
    local x = nyx.randn({ 2, 11, 8 }, o)
    local y = layer(x, nil, nil, { is_causal = true })
    layer.out_proj.weight.grad = nil
    local q = x:linear(layer.in_proj_weight:narrow(1, 1, 8), layer.in_proj_bias:narrow(1, 1, 8))
    local k = x:linear(layer.in_proj_weight:narrow(1, 9, 4), layer.in_proj_bias:narrow(1, 9, 4))
    local v = x:linear(layer.in_proj_weight:narrow(1, 13, 4), layer.in_proj_bias:narrow(1, 13, 4))
    q = q:reshape(2, 11, 4, 2):transpose(2, 3)
    k, v = k:reshape(2, 11, 2, 2):transpose(2, 3), v:reshape(2, 11, 2, 2):transpose(2, 3)
    local drops = drops_of(22, q, k, 0.3)
    local want = layer.out_proj(composed(q, k, v, { is_causal = true }, drops):transpose(2, 3)
      :reshape(2, 11, 8))
    nyx.manual_seed(22)
    local got = layer(x, nil, nil, { is_causal = true })
    assert(differ(got, want) < 1e-12)
    assert(differ(got, y) > 1e-3)
    layer:eval()
    assert(layer(x):equal(layer(x)))
  end)

  it("drops the weights that it gives", function()
    nyx.manual_seed(23)
    local layer, x = nn.MultiheadAttention(8, 2, { dropout = 0.5 }), nyx.randn(1, 20, 8)
    local _, weights = layer(x, x, x, { need_weights = true, average_attn_weights = false })
    local share = weights:eq(0):float():mean():item()
    assert(share > 0.4 and share < 0.6, share)
  end)

  it("gives no NaN to a query that sees nothing", function()
    local layer, x = nn.MultiheadAttention(8, 2, { dropout = 0.5 }), nyx.randn(1, 4, 8)
    x:requires_grad_()
    local y = layer(x, nil, nil, { key_padding_mask = nyx.ones({ 1, 4 }, { dtype = "bool" }) })
    y:sum():backward()
    assert.is_false(y:isnan():any():item() or x.grad:isnan():any():item())
  end)
end)
