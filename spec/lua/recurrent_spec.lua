-- Recurrent layers beyond what spec/op and spec/peers call them with: sizes around those of
-- tiles and tasks, results that no number of threads changes, orders of gradients, batches and
-- forward mode, options, states, errors, files.
local nyx = require "nyx"
local nn = nyx.nn

local unpack = table.unpack or unpack -- luacheck: ignore
local gates_of = { lstm = 4, gru = 3, tanh = 1, relu = 1 }
local modes = { "lstm", "gru", "tanh", "relu" }

-- The op from products, sigmoid and tanh, step by step: the states, and of an LSTM the cells.
local function composed(p, mode, reverse)
  local hidden = p.weight_hh:size(1) / gates_of[mode]
  local h = p.h0 or nyx.zeros({ p.x:size(2), p.weight_hh:size(2) }, { dtype = p.x.dtype })
  local c = p.c0 or nyx.zeros({ p.x:size(2), hidden }, { dtype = p.x.dtype })
  local states, cells = {}, {}
  local function gate(t, k) return t:narrow(2, (k - 1) * hidden + 1, hidden) end
  for s = 1, p.x:size(1) do
    local t = reverse and p.x:size(1) + 1 - s or s
    local a, b = p.x[t]:linear(p.weight_ih, p.bias_ih), h:linear(p.weight_hh, p.bias_hh)
    if mode == "lstm" then
      local both = a + b
      c = gate(both, 2):sigmoid() * c + gate(both, 1):sigmoid() * gate(both, 3):tanh()
      h = gate(both, 4):sigmoid() * c:tanh()
      if p.weight_hr then h = h:linear(p.weight_hr) end
    elseif mode == "gru" then
      local r = (gate(a, 1) + gate(b, 1)):sigmoid()
      local z = (gate(a, 2) + gate(b, 2)):sigmoid()
      h = (1 - z) * (gate(a, 3) + r * gate(b, 3)):tanh() + z * h
    else
      h = nyx[mode](a + b)
    end
    states[t], cells[t] = h, c
  end
  return nyx.stack(states, 1), mode == "lstm" and nyx.stack(cells, 1) or nil
end

-- The same of sequences of different lengths, each one alone, zeros behind its end.
local function one_by_one(p, mode, reverse)
  local states, cells = {}, {}
  local function row(t, b) return t and t:narrow(1, b, 1) end
  for b, n in ipairs(p.lengths:totable()) do
    local own = setmetatable({ x = p.x:narrow(1, 1, n):narrow(2, b, 1), h0 = row(p.h0, b),
      c0 = row(p.c0, b) }, { __index = function(_, name)
        return name ~= "h0" and name ~= "c0" and p[name] or nil
      end })
    for list, t in pairs { [states] = 1, [cells] = 2 } do
      local y = select(t, composed(own, mode, reverse))
      list[b] = y and nyx.cat({ y, nyx.zeros({ p.x:size(1) - n, 1, y:size(3) },
        { dtype = y.dtype }) }, 1)
    end
  end
  return nyx.cat(states, 2), cells[1] and nyx.cat(cells, 2)
end

-- Inputs of the op as leaves; `full`: with biases and first states; `state`: how many features
-- the states are projected to.
local function leaves(mode, length, batch, input, hidden, dtype, full, state)
  local rows, p, names = gates_of[mode] * hidden, {}, {}
  local function add(name, scale, ...)
    p[name] = (nyx.randn({ ... }, { dtype = dtype }) * scale):detach():requires_grad_()
    names[#names + 1] = name
  end
  add("x", 1, length, batch, input)
  add("weight_ih", input ^ -0.5, rows, input)
  add("weight_hh", hidden ^ -0.5, rows, state or hidden)
  if state then add("weight_hr", hidden ^ -0.5, state, hidden) end
  if full then
    add("bias_ih", 0.5, rows)
    add("bias_hh", 0.5, rows)
    add("h0", 1, batch, state or hidden)
    if mode == "lstm" then add("c0", 1, batch, hidden) end
  end
  return p, names
end

local function recurrence(p, mode, reverse)
  local y, _, cells = nyx.recurrence(p.x, p.weight_ih, p.weight_hh, { bias_ih = p.bias_ih,
    bias_hh = p.bias_hh, h0 = p.h0, c0 = p.c0, weight_hr = p.weight_hr, lengths = p.lengths,
    mode = mode, reverse = reverse })
  return y, cells
end

-- Lengths from 1 to `length`, in no order unless `sorted`; what lies behind the ends is no number.
local function add_lengths(p, sorted)
  local length, batch, list = p.x:size(1), p.x:size(2), {}
  for b = 1, batch do list[b] = (b * 7 + 3) % length + 1 end
  list[batch] = length
  if sorted then table.sort(list, function(a, b) return a > b end) end
  nyx.no_grad(function()
    for b, n in ipairs(list) do
      if n < length then p.x:narrow(1, n + 1, length - n):narrow(2, b, 1):fill_(0 / 0) end
    end
  end)
  p.lengths = nyx.tensor(list, { dtype = "int64" })
end

local function gradients(p, names, f, ...)
  local y, cells = f(p, ...)
  nyx.manual_seed(5)
  local loss = (y * nyx.randn(y.shape):to(y.dtype)):sum()
  if cells then loss = loss + (cells * nyx.randn(cells.shape):to(y.dtype)):sum() end
  local list = {}
  for i, name in ipairs(names) do list[i] = p[name] end
  local all = nyx.grad(loss, list)
  all[#all + 1] = y:detach()
  return all
end

local function relative(a, b)
  return ((a:to("float64") - b):abs():max() / (b:abs():max() + 1)):item()
end

local function in_double(p, names)
  local q = {}
  for _, name in ipairs(names) do
    q[name] = p[name]:detach():to("float64"):requires_grad_()
  end
  q.lengths = p.lengths
  return q
end

-- How far the gradients move when x moves by one float32 ulp: what rounding costs at least where
-- many steps multiply it.
local function sensitivity(p, names, want, ...)
  local q, moved = in_double(p, names), {}
  q.x = (q.x:detach() * (1 + 2 ^ -23)):requires_grad_()
  for i, gradient in ipairs(gradients(q, names, composed, ...)) do
    moved[i] = relative(gradient, want[i])
  end
  return moved
end

describe("recurrence", function()
  -- length, batch, input, hidden: less and more than a tile of 4 to 32 columns, tasks of some
  -- rows, columns divided because the weights are large or the rows few
  for _, size in ipairs { { 1, 1, 1, 1 }, { 3, 2, 5, 4 }, { 4, 40, 3, 33 }, { 5, 17, 31, 64 },
    { 3, 1, 20, 700 }, { 70, 3, 2, 4 }, { 2, 60, 120, 330 }, { 3, 33, 129, 95 } } do
    it("equals its parts: " .. table.concat(size, " "), function()
      nyx.manual_seed(3)
      for _, dtype in ipairs { "float64", "float32" } do
        for _, mode in ipairs(modes) do
          for _, full in ipairs { false, true } do
            for _, reverse in ipairs { false, true } do
              local length, batch, input, hidden = unpack(size)
              local p, names = leaves(mode, length, batch, input, hidden, dtype, full)
              local own = gradients(p, names, recurrence, mode, reverse)
              -- Seventy steps multiply rounding: float32 may be as far off as the parts are.
              local want = gradients(in_double(p, names), names, composed, mode, reverse)
              local parts = dtype == "float32" and gradients(p, names, composed, mode, reverse)
              local moved
              for i = 1, #own do
                local name, error = names[i] or "the result", relative(own[i], want[i])
                local bound = parts and 4 * relative(parts[i], want[i]) + 2e-6 or 1e-11
                if parts and error >= bound then
                  moved = moved or sensitivity(p, names, want, mode, reverse)
                  bound = math.max(bound, 2 * moved[i])
                end
                assert(error < bound, ("%s %s full=%s reverse=%s: %s is off by %.1e, allowed %.1e")
                  :format(dtype, mode, tostring(full), tostring(reverse), name, error, bound))
              end
            end
          end
        end
      end
    end)
  end

  -- The same, and `state`: rows that go through all steps alone, columns divided.
  for _, size in ipairs { { 1, 1, 1, 2, 1 }, { 4, 3, 5, 7, 3 }, { 5, 40, 3, 33, 20 },
    { 30, 3, 2, 4, 3 }, { 3, 20, 110, 420, 70 } } do
    it("equals its parts with lengths and projected states: " .. table.concat(size, " "), function()
      nyx.manual_seed(10)
      for i = 0, 31 do
        local length, batch, input, hidden, state = unpack(size)
        local function bit(k) return math.floor(i / 2 ^ k) % 2 == 1 end
        local mode, project = modes[i % 4 + 1], i % 4 == 0 and bit(2)
        local reverse, full, lengths, dtype = bit(3), bit(4), i % 8 ~= 4, "float64"
        local p, names = leaves(mode, length, batch, input, hidden, dtype, full,
          project and state or nil)
        if lengths then add_lengths(p, bit(2)) end
        local own = gradients(p, names, recurrence, mode, reverse)
        local want = gradients(p, names, lengths and one_by_one or composed, mode, reverse)
        names[#names + 1] = "the result"
        for k, name in ipairs(names) do
          assert(relative(own[k], want[k]) < 1e-11, ("%s %d: %s"):format(mode, i, name))
        end
      end
    end)
  end

  it("gives the same whatever the number of threads", function()
    nyx.manual_seed(4)
    local threads, first = nyx.get_num_threads(), {}
    for _, size in ipairs { { 3, 40, 20, 64 }, { 2, 30, 100, 400 }, { 2, 1, 64, 800 },
      { 3, 40, 20, 64, 30 }, { 2, 30, 100, 400, 200 } } do
      for _, mode in ipairs { "lstm", "gru" } do
        local length, batch, input, hidden, state = unpack(size)
        local p, names = leaves(mode, length, batch, input, hidden, "float32", true,
          mode == "lstm" and state or nil)
        if state then add_lengths(p) end
        for run, n in ipairs { 1, 2, 5, 16 } do
          nyx.set_num_threads(n)
          local all = gradients(p, names, recurrence, mode, false)
          if run == 1 then first = all end
          for i, t in ipairs(all) do
            assert(t:eq(first[i]):all():item(), ("%s, %d threads, %d"):format(mode, n, i))
          end
        end
      end
    end
    nyx.set_num_threads(threads)
  end)

  it("has gradients of second order that go through gates and cells", function()
    for _, mode in ipairs(modes) do
      nyx.manual_seed(6)
      for _, lengths in ipairs { false, nyx.tensor({ 1, 3 }, { dtype = "int64" }) } do
        for _, reverse in ipairs { false, true } do
          local p, names = leaves(mode, 3, 2, 2, 3, "float64", true,
            mode == "lstm" and lengths and 2 or nil)
          local list = {}
          for i, name in ipairs(names) do list[i] = p[name] end
          local function call(...)
            local q = {}
            for i, name in ipairs(names) do q[name] = (select(i, ...)) end
            return nyx.recurrence(q.x, q.weight_ih, q.weight_hh, { bias_ih = q.bias_ih,
              bias_hh = q.bias_hh, h0 = q.h0, c0 = q.c0, weight_hr = q.weight_hr,
              lengths = lengths or nil, mode = mode, reverse = reverse })
          end
          assert(nyx.gradcheck(call, list))
          assert(nyx.gradgradcheck(call, list,
            { fast = true, eps = 1e-5, atol = 2e-5, rtol = 2e-5 }))
        end
      end
    end
  end)

  it("goes through more steps with ops than one list joins", function()
    nyx.manual_seed(7)
    for _, mode in ipairs { "lstm", "gru" } do
      local p, names = leaves(mode, 130, 2, 2, 3, "float64", false)
      local list = {}
      for i, name in ipairs(names) do list[i] = p[name] end
      local function loss() return (recurrence(p, mode)):square():sum() end
      local recorded = nyx.grad(loss(), list, { create_graph = true })
      local plain = nyx.grad(loss(), list)
      for i = 1, #list do assert(relative(recorded[i]:detach(), plain[i]) < 1e-12, names[i]) end
      assert(recorded[1].requires_grad)
    end
  end)

  it("does not look behind the ends, with ops either", function()
    for _, mode in ipairs(modes) do
      for _, reverse in ipairs { false, true } do
        nyx.manual_seed(11)
        local p, names = leaves(mode, 5, 4, 2, 3, "float64", true, mode == "lstm" and 2 or nil)
        add_lengths(p)
        local list = {}
        for i, name in ipairs(names) do list[i] = p[name] end
        local function loss() return (recurrence(p, mode, reverse)):square():sum() end
        local recorded = nyx.grad(loss(), list, { create_graph = true })
        local plain = nyx.grad(loss(), list)
        for i = 1, #list do assert(relative(recorded[i]:detach(), plain[i]) < 1e-12, names[i]) end
      end
    end
  end)

  it("gives a sequence of no steps zeros", function()
    nyx.manual_seed(12)
    local p, names = leaves("lstm", 3, 2, 2, 3, "float64", true)
    p.lengths = nyx.tensor({ 0, 2 }, { dtype = "int64" })
    for _, reverse in ipairs { false, true } do
      local all = gradients(p, names, recurrence, "lstm", reverse)
      local y = all[#all]
      assert.equal(0, y:narrow(2, 1, 1):abs():max():item())
      assert.equal(0, y[3]:abs():max():item())
      assert.is_true(y:narrow(1, 1, 2):narrow(2, 2, 1):abs():min():item() > 0)
      assert.equal(0, all[6][1]:abs():max():item()) -- of h0
      assert.is_true(all[6][2]:abs():max():item() > 0)
    end
  end)

  it("computes half types in float32", function()
    nyx.manual_seed(8)
    for _, mode in ipairs(modes) do
      local p = leaves(mode, 4, 3, 5, 6, "float32", true)
      local half = {}
      for name, t in pairs(p) do half[name] = t:detach():to "bfloat16":requires_grad_() end
      local y, gates = nyx.recurrence(half.x, half.weight_ih, half.weight_hh, { mode = mode })
      assert.equal("bfloat16", y.dtype)
      if gates then assert.equal("float32", gates.dtype) end
      local wide = nyx.recurrence(half.x:to "float32", half.weight_ih:to "float32",
        half.weight_hh:to "float32", { mode = mode })
      assert(relative(y:to "float32", wide) < 0.01)
      y:sum():backward()
      assert.equal("bfloat16", half.weight_hh.grad.dtype)
    end
  end)

  it("refuses what does not fit", function()
    local x, w, u = nyx.zeros(3, 2, 5), nyx.zeros(16, 5), nyx.zeros(16, 4)
    local function message(a, b, c, options)
      return select(2, pcall(nyx.recurrence, a, b, c, options))
    end
    local lstm = { mode = "lstm" }
    assert.matches("'mode' is \"elman\", expected lstm, gru, tanh or relu",
      message(x, w, u, { mode = "elman" }))
    assert.matches("weight_hh has shape %(16x4%), expected for mode \"gru\" %(3 %* hidden",
      message(x, w, u, { mode = "gru" }))
    assert.matches("x has shape %(2x5%), weight_ih %(16x5%); expected %(length, batch, features%)",
      message(x[1], w, u, lstm))
    assert.matches("and %(16, features%)", message(x, nyx.zeros(16, 4), u, lstm))
    assert.matches("length and features at least 1", message(nyx.zeros(0, 2, 5), w, u, lstm))
    assert.matches("'h0' has shape %(2x3%), expected", message(x, w, u,
      { mode = "lstm", h0 = nyx.zeros(2, 3) }))
    assert.matches("'c0' has shape %(1x4%), expected", message(x, w, u,
      { mode = "lstm", c0 = nyx.zeros(1, 4) }))
    assert.matches("'bias_hh' has shape %(4%), expected", message(x, w, u,
      { mode = "lstm", bias_hh = nyx.zeros(4) }))
    assert.matches("'c0' is given, but mode \"tanh\" has no cells", message(x, nyx.zeros(4, 5),
      nyx.zeros(4, 4), { mode = "tanh", c0 = nyx.zeros(2, 4) }))
    assert.matches("'weight_hr' is given, but states of mode \"gru\" are not projected",
      message(x, nyx.zeros(12, 5), nyx.zeros(12, 2), { mode = "gru", weight_hr = nyx.zeros(2, 4) }))
    assert.matches("'weight_hr' has shape %(2x3%), expected %(2x4%)", message(x, w,
      nyx.zeros(16, 2), { mode = "lstm", weight_hr = nyx.zeros(2, 3) }))
    for _, size in ipairs { { 0, 4 }, { 2, 0 } } do -- no state, no cells
      assert.matches(("weight_hr has shape %%(%dx%d%%), .*at least 1"):format(size[1], size[2]),
        message(x, nyx.zeros(4 * size[2], x:size(3)), nyx.zeros(4 * size[2], size[1]),
          { mode = "lstm", weight_hr = nyx.zeros(size) }))
    end
    local function of(list, dtype)
      return { mode = "lstm", lengths = nyx.tensor(list, { dtype = dtype or "int64" }) }
    end
    assert.matches("length 4 of sequence 2 is out of range, expected 0 to 3, the steps of x",
      message(x, w, u, of { 3, 4 }))
    assert.matches("length %-1 of sequence 1", message(x, w, u, of { -1, 2 }))
    assert.matches("'lengths' has shape %(3%), expected %(2%)", message(x, w, u, of { 3, 2, 1 }))
    assert.matches("'lengths' is float32, expected an integer", message(x, w, u,
      of({ 1, 2 }, "float32")))
    assert.matches("input 3 %(gates%) is missing", select(2, pcall(nyx.recurrence_backward, u,
      nyx.zeros(3, 2, 4), lstm)))
  end)

  it("takes an empty batch", function()
    local w, u = nyx.zeros({ 16, 5 }), nyx.zeros({ 16, 4 }):requires_grad_()
    local y = nyx.recurrence(nyx.zeros(3, 0, 5), w, u, { mode = "lstm" })
    assert.same({ 3, 0, 4 }, y.shape)
    y:sum():backward()
    assert.equal(0, u.grad:abs():max():item())
  end)
end)

-- ---------------------------------------------------------------- layers

local function names_of(layer)
  local names = {}
  for name in layer:named_parameters() do names[#names + 1] = name end
  return names
end

describe("recurrent layers", function()
  it("name their parameters like PyTorch", function()
    assert.same({ "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0",
      "weight_ih_l0_reverse", "weight_hh_l0_reverse", "bias_ih_l0_reverse", "bias_hh_l0_reverse" },
      names_of(nn.LSTM(3, 4, { bidirectional = true })))
    assert.same({ "weight_ih_l0", "weight_hh_l0", "weight_ih_l1", "weight_hh_l1" },
      names_of(nn.GRU(3, 4, { num_layers = 2, bias = false })))
    assert.same({ "weight_ih", "weight_hh", "bias_ih", "bias_hh" }, names_of(nn.LSTMCell(3, 4)))
    local layer = nn.GRU(3, 4, { num_layers = 2, bidirectional = true })
    assert.same({ 12, 3 }, layer.weight_ih_l0.shape)
    assert.same({ 12, 8 }, layer.weight_ih_l1_reverse.shape)
    assert(layer.weight_hh_l0:abs():max():item() <= 0.5)
  end)

  -- Layers and directions one by one, from the parts.
  local function by_parts(layer, x, h0, c0)
    local ways, last_h, last_c = layer.bidirectional and 2 or 1, {}, {}
    for l = 0, layer.num_layers - 1 do
      local results = {}
      for way = 1, ways do
        local suffix = "_l" .. l .. (way == 2 and "_reverse" or "")
        local i = l * ways + way
        local y, cells = composed({ x = x, weight_ih = layer["weight_ih" .. suffix],
          weight_hh = layer["weight_hh" .. suffix], bias_ih = layer["bias_ih" .. suffix],
          bias_hh = layer["bias_hh" .. suffix], h0 = h0 and h0[i], c0 = c0 and c0[i] },
          layer.mode, way == 2)
        local t = way == 2 and 1 or y:size(1)
        results[way], last_h[i], last_c[i] = y, y[t], cells and cells[t]
      end
      x = nyx.cat(results, -1)
    end
    return x, nyx.stack(last_h, 1), last_c[1] and nyx.stack(last_c, 1)
  end

  for _, make in ipairs { { "LSTM" }, { "GRU" }, { "RNN" }, { "RNN", "relu" } } do
    local name = make[1]
    it(table.concat(make, " ") .. " equals its layers and directions", function()
      nyx.manual_seed(9)
      for _, both in ipairs { false, true } do
        local options = { num_layers = 2, bidirectional = both, dtype = "float64",
          nonlinearity = make[2] }
        local layer = nn[name](3, 4, options)
        local x = nyx.randn({ 5, 2, 3 }, { dtype = "float64" })
        local n = both and 4 or 2
        local h0 = nyx.randn({ n, 2, 4 }, { dtype = "float64" })
        local c0 = name == "LSTM" and nyx.randn({ n, 2, 4 }, { dtype = "float64" }) or nil
        for _, states in ipairs { {}, { h0, c0 } } do
          local got, want = { layer(x, states[1], states[2]) },
            { by_parts(layer, x, states[1], states[2]) }
          assert.equal(name == "LSTM" and 3 or 2, #got)
          for i = 1, #got do
            assert.same(want[i].shape, got[i].shape)
            assert(relative(got[i]:detach(), want[i]:detach()) < 1e-12)
          end
        end
        options.batch_first = true
        local first = nn[name](3, 4, options)
        first:load_state_dict(layer:state_dict())
        local y, h = layer(x, h0, c0)
        local turned, same = first(x:transpose(1, 2), h0, c0)
        assert(relative(turned:transpose(1, 2):detach(), y:detach()) < 1e-12)
        assert(relative(same:detach(), h:detach()) < 1e-12)
        local single, last = layer(x:select(2, 1), h0:select(2, 1), c0 and c0:select(2, 1))
        assert(relative(single:detach(), y:select(2, 1):detach()) < 1e-12)
        assert(relative(last:detach(), h:select(2, 1):detach()) < 1e-12)
      end
    end)

    it(name .. "Cell does one step of it", function()
      nyx.manual_seed(10)
      local cell = nn[name .. "Cell"](3, 4, { dtype = "float64", nonlinearity = make[2] })
      local layer = nn[name](3, 4, { dtype = "float64", nonlinearity = make[2] })
      local state = {}
      for key, value in pairs(cell:state_dict()) do state[key .. "_l0"] = value end
      layer:load_state_dict(state)
      local x = nyx.randn({ 3, 2, 3 }, { dtype = "float64" })
      local h, c
      for t = 1, 3 do h, c = cell(x[t], h, c) end
      local _, want, want_c = layer(x)
      assert(relative(h:detach(), want[1]:detach()) < 1e-12)
      if want_c then assert(relative(c:detach(), want_c[1]:detach()) < 1e-12) end
      assert(relative(cell(x[1][1]):detach(), (cell(x[1]))[1]:detach()) < 1e-12)
    end)
  end

  it("drop between layers, in training only", function()
    local layer, x = nn.LSTM(3, 8, { num_layers = 2, dropout = 0.5 }), nyx.randn(4, 2, 3)
    assert((layer(x) - layer(x)):abs():max():item() > 0)
    layer:eval()
    assert.equal(0, (layer(x) - layer(x)):abs():max():item())
    local one = nn.LSTM(3, 8, { dropout = 0.5 }) -- after the last layer nothing is dropped
    assert.equal(0, (one(x) - one(x)):abs():max():item())
  end)

  it("give gradients to states and to what the last states are used for", function()
    local layer = nn.LSTM(2, 3, { dtype = "float64" })
    local o = { dtype = "float64" }
    local x = nyx.randn({ 3, 2, 2 }, o)
    local list = { x, nyx.randn({ 1, 2, 3 }, o), nyx.randn({ 1, 2, 3 }, o) }
    for _, t in ipairs(list) do t:requires_grad_() end
    assert(nyx.gradcheck(function(a, b, c) return layer(a, b, c) end, list))
    local _, _, c = layer(x)
    c:sum():backward()
    assert(layer.weight_hh_l0.grad:abs():max():item() > 0)
  end)

  it("map over a batch and have a forward mode", function()
    nyx.manual_seed(11)
    local o = { dtype = "float64" }
    local layer = nn.GRU(2, 3, { dtype = "float64" })
    local x = nyx.randn({ 4, 5, 2, 2 }, o)
    local mapped = nyx.func.vmap(function(one) return (layer(one)) end)(x)
    for i = 1, 4 do assert(relative(mapped[i]:detach(), layer(x[i]):detach()) < 1e-12) end
    local function f(one) return (layer(one)) end
    local v, eps = nyx.randn({ 5, 2, 2 }, o), 1e-6
    local _, tangent = nyx.func.jvp(f, { x[1] }, { v })
    local want = (f(x[1] + v * eps) - f(x[1] - v * eps)) / (2 * eps)
    assert(relative(tangent:detach(), want:detach()) < 1e-8)
  end)

  it("are saved and loaded", function()
    local path = os.tmpname()
    for _, layer in ipairs { nn.LSTM(3, 4, { num_layers = 2, bidirectional = true }),
      nn.RNN(3, 4, { nonlinearity = "relu", batch_first = true }),
      nn.GRU(3, 4, { bias = false }) } do
      nyx.save(path, layer)
      local x, loaded = nyx.randn(2, 5, 3), nyx.load(path)
      assert.equal(0, (layer(x) - loaded(x)):abs():max():item())
      assert.equal(tostring(layer), tostring(loaded))
    end
    nyx.save(path, nn.GRUCell(3, 4))
    assert.same({ 2, 4 }, nyx.load(path)(nyx.randn(2, 3)).shape)
    os.remove(path)
  end)

  it("say what they are", function()
    assert.matches("LSTM%(3, 4, num_layers=2, dropout=0.5, bidirectional=true%)",
      tostring(nn.LSTM(3, 4, { num_layers = 2, dropout = 0.5, bidirectional = true })))
    assert.matches("RNN%(3, 4, nonlinearity=relu%)",
      tostring(nn.RNN(3, 4, { nonlinearity = "relu" })))
  end)

  it("refuse what does not fit", function()
    local function message(f, ...) return select(2, pcall(f, ...)) end
    local layer, x = nn.LSTM(3, 4), nyx.zeros(5, 2, 3)
    assert.matches("nn.LSTM: 'hidden_size' is number 0", message(nn.LSTM, 3, 0))
    assert.matches("unknown option 'proj_size'", message(nn.GRU, 3, 4, { proj_size = 2 }))
    assert.matches("'proj_size' is 4, expected less than 'hidden_size', 4",
      message(nn.LSTM, 3, 4, { proj_size = 4 }))
    assert.matches("'h0' is a tensor of shape %(1x2x4%), expected %(1x2x2%)",
      message(nn.LSTM(3, 4, { proj_size = 2 }), x, nyx.zeros(1, 2, 4)))
    assert.matches("unknown option 'nonlinearity'",
      message(nn.GRU, 3, 4, { nonlinearity = "relu" }))
    assert.matches("'nonlinearity' is string 'elu'",
      message(nn.RNN, 3, 4, { nonlinearity = "elu" }))
    assert.matches("expected 3 features %(input_size%)", message(layer, nyx.zeros(5, 2, 4)))
    assert.matches("expected 3 dimensions, or 2 without a batch", message(layer, nyx.zeros(3)))
    assert.matches("'h0' is a tensor of shape %(1x3x4%), expected %(1x2x4%)",
      message(layer, x, nyx.zeros(1, 3, 4)))
    assert.matches("'c0' is a tensor of shape %(1x2x5%), expected %(1x2x4%)",
      message(layer, x, nyx.zeros(1, 2, 4), nyx.zeros(1, 2, 5)))
    assert.matches("'h0' is number 1, expected a tensor", message(layer, x, 1))
    assert.matches("a third argument is given, but it has no cells",
      message(nn.GRU(3, 4), x, nyx.zeros(1, 2, 4), nyx.zeros(1, 2, 4)))
    local cell = nn.LSTMCell(3, 4)
    assert.matches("expected 2 dimensions, or 1 without a batch", message(cell, x))
    assert.matches("'h' is a tensor of shape %(2x5%), expected %(2x4%)",
      message(cell, x[1], nyx.zeros(2, 5)))
  end)
end)

describe("an LSTM with projections", function()
  it("names its parameters like PyTorch", function()
    local names = {}
    for name, parameter in nn.LSTM(3, 5, { proj_size = 2, num_layers = 2 }):named_parameters() do
      names[#names + 1] = name .. " " .. table.concat(parameter.shape, "x")
    end
    assert.same({ "weight_ih_l0 20x3", "weight_hh_l0 20x2", "bias_ih_l0 20", "bias_hh_l0 20",
      "weight_hr_l0 2x5", "weight_ih_l1 20x2", "weight_hh_l1 20x2", "bias_ih_l1 20",
      "bias_hh_l1 20", "weight_hr_l1 2x5" }, names)
  end)

  it("is the same step by step, from its own states", function()
    nyx.manual_seed(8)
    for _, dtype in ipairs { "float64", "float32", "bfloat16" } do
      local layer = nn.LSTM(3, 6, { proj_size = 4, dtype = dtype })
      local x, h, c = nyx.randn(7, 2, 3):to(dtype), nil, nil
      local all, last, cells = layer(x)
      assert.same({ 7, 2, 4 }, all.shape)
      assert.same({ 1, 2, 4 }, last.shape)
      assert.same({ 1, 2, 6 }, cells.shape)
      assert.equal(dtype, cells.dtype)
      local bound = dtype == "float64" and 1e-14 or dtype == "float32" and 1e-6 or 0.02
      for t = 1, 7 do
        local y
        y, h, c = layer(x:narrow(1, t, 1), h, c)
        assert((y[1] - all[t]):abs():max():item() < bound, dtype)
      end
      assert((c - cells):abs():max():item() < 2 * bound)
      local _, h3, c3 = layer(x:narrow(1, 1, 3))
      local rest, _, last_cells = layer(x:narrow(1, 4, 4), h3, c3)
      assert((rest - all:narrow(1, 4, 4)):abs():max():item() < bound, dtype)
      assert((last_cells - cells):abs():max():item() < 2 * bound)
    end
  end)
end)

describe("packed sequences", function()
  local rnn = nn.utils.rnn
  local function differ(a, b) return (a - b):abs():max():item() end

  it("hold all first steps, then all second ones", function()
    local x = nyx.arange(1, 13):reshape(4, 3) -- (steps, batch)
    local packed = rnn.pack_padded_sequence(x, { 2, 4, 1 }, { enforce_sorted = false })
    assert.same({ 2, 1, 3, 5, 4, 8, 11 }, packed.data:totable())
    assert.same({ 3, 2, 1, 1 }, packed.batch_sizes:totable())
    assert.same({ 2, 1, 3 }, packed.sorted_indices:totable())
    local same, lengths = rnn.pad_packed_sequence(packed, { padding_value = -1, total_length = 5 })
    assert.same({ 2, 4, 1 }, lengths:totable())
    assert.same({ { 1, 2, 3 }, { 4, 5, -1 }, { -1, 8, -1 }, { -1, 11, -1 }, { -1, -1, -1 } },
      same:totable())
    local other = rnn.pack_padded_sequence(x:transpose(1, 2), nyx.tensor({ 2, 4, 1 },
      { dtype = "int32" }), { enforce_sorted = false, batch_first = true })
    assert.same(packed.data:totable(), other.data:totable())
    local plain = rnn.pack_padded_sequence(x, { 3, 3, 1 })
    assert.is_nil(plain.sorted_indices)
    assert.same({ 3, 2, 2 }, plain.batch_sizes:totable())
  end)

  it("give each sequence what it has alone", function()
    nyx.manual_seed(9)
    for _, name in ipairs { "LSTM", "GRU", "RNN" } do
      local layer = nn[name](3, 5, { num_layers = 2, bidirectional = true, dtype = "float64" })
      local x, lengths = nyx.randn({ 6, 4, 3 }, { dtype = "float64" }), { 3, 6, 1, 3 }
      local h0 = nyx.randn({ 4, 4, 5 }, { dtype = "float64" })
      local c0 = name == "LSTM" and nyx.randn({ 4, 4, 5 }, { dtype = "float64" }) or nil
      for i, length in ipairs(lengths) do -- what lies behind the end is not looked at
        if length < 6 then x:narrow(1, length + 1, 6 - length):narrow(2, i, 1):fill_(0 / 0) end
      end
      local packed = rnn.pack_padded_sequence(x, lengths, { enforce_sorted = false })
      local y, h, c = layer(packed, h0, c0)
      y = rnn.pad_packed_sequence(y)
      for i, length in ipairs(lengths) do
        local own, last, cells = layer(x:narrow(1, 1, length):narrow(2, i, 1),
          h0:narrow(2, i, 1), c0 and c0:narrow(2, i, 1))
        assert(differ(y:narrow(1, 1, length):narrow(2, i, 1), own) < 1e-14, name)
        assert(differ(h:narrow(2, i, 1), last) < 1e-14, name)
        assert(not c or differ(c:narrow(2, i, 1), cells) < 1e-14)
      end
    end
  end)

  it("refuse what does not fit", function()
    local function message(...) return select(2, pcall(rnn.pack_padded_sequence, ...)) end
    local x = nyx.zeros(4, 3)
    assert.matches("lengths do not fall; sort the sequences", message(x, { 1, 2, 3 }))
    assert.matches("'lengths' is .*expected %(3%) integers", message(x, { 4, 2 }))
    assert.matches("a length is 5, expected 1 to 4", message(x, { 5, 2, 1 }))
    assert.matches("a length is 0, expected 1 to 4", message(x, nyx.zeros({ 3 },
      { dtype = "int64" })))
    assert.matches("expected an integer", message(x, { 3, 2.5, 1 }))
    assert.matches("expected a PackedSequence", select(2, pcall(rnn.pad_packed_sequence, x)))
    local packed = rnn.pack_padded_sequence(nyx.zeros(4, 3, 2), { 4, 2, 1 })
    assert.matches("'total_length' is number 3, expected an integer of at least 4",
      select(2, pcall(rnn.pad_packed_sequence, packed, { total_length = 3 })))
    assert.matches("expected 5 features %(input_size%)",
      select(2, pcall(nn.GRU(5, 2), packed)))
    assert.matches("'h0' is a tensor of shape %(1x2x2%), expected %(1x3x2%)",
      select(2, pcall(nn.GRU(2, 2), packed, nyx.zeros(1, 2, 2))))
  end)
end)
