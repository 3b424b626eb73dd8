-- nyx.cpu_info, nyx.set_affinity and nyx.set_numa: what they give and refuse; where threads and
-- memory really are is looked at in spec/c/cores_test.c.
local nyx = require "nyx"

describe("the machine", function()
  after_each(function()
    nyx.set_affinity "none"
    nyx.set_numa "none"
  end)

  it("is described by nyx.cpu_info", function()
    local info = nyx.cpu_info()
    assert.are.equal(nyx.cpu_path(), info.path)
    assert.is_true(info.cores >= 1 and info.nodes >= 1)
    for _, field in ipairs { "line", "l1", "l2", "l3", "in_place_bytes" } do
      assert.are.equal("number", type(info[field]), field)
    end
    for _, dtype in ipairs { "float32", "float64" } do
      local tile, item = info.tiles[dtype], dtype == "float32" and 4 or 8
      local vectors = tile.columns * item / info.vector_bytes
      assert.are.equal(tile.rows * vectors + vectors + 1, tile.registers)
      assert.is_true(tile.registers <= info.vector_registers)
      assert.are.equal(tile.depth * tile.columns * item, tile.b_bytes)
      assert.is_true(info.l2 == 0 or tile.a_bytes <= info.l2)
    end
    assert.are.equal("string", type(info.tiles.int8.unit))
  end)

  it("takes affinities by name and by list", function()
    assert.are.equal("none", nyx.get_affinity())
    nyx.set_affinity "compact"
    assert.are.equal("compact", nyx.get_affinity())
    assert.are.equal(70, nyx.ones(70, 300):matmul(nyx.ones(300, 70)):sum(1)[1]:item() / 300)
    local first = nyx.cpu_info().allowed:match "^%d+"
    if first then
      nyx.set_affinity(first)
      assert.are.equal(1, nyx.get_num_threads())
    end
    local ok, message = pcall(nyx.set_affinity, "nowhere")
    assert.is_false(ok)
    assert.matches("affinity: 'nowhere', expected none, compact, spread or a list of CPUs",
      message, 1, true)
    ok, message = pcall(nyx.set_affinity, 3)
    assert.is_false(ok)
    assert.matches("bad argument #1 'cpus' to 'set_affinity' (string expected, got", message, 1,
      true)
  end)

  it("takes policies for memory", function()
    assert.are.equal("none", nyx.get_numa())
    local ok, message = pcall(nyx.set_numa, "interleave")
    if ok then
      assert.are.equal("interleave", nyx.get_numa())
      assert.are.equal(2 ^ 20, nyx.ones(2 ^ 20):sum():item())
    else
      assert.matches("numa: the system refuses to place memory", message, 1, true)
    end
    ok, message = pcall(nyx.set_numa, "far")
    assert.is_false(ok)
    assert.matches("set_numa: 'policy' is 'far', expected none, local or interleave", message)
  end)
end)
