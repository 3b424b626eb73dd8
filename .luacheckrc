-- luacheck: the Lua layers run on Lua 5.4 and LuaJIT, so only what both have is allowed.
std = "max"
max_line_length = 100
exclude_files = {"build/**", "install/**", ".venv/**"}

files["lua/**"] = {std = "lua51+lua54"}
files["examples/**"] = {std = "lua51+lua54"}
files["spec/**"] = {std = "max+busted", ignore = {"432"}}
files["rocks/*/spec/**"] = {std = "max+busted"}
files["rocks/*.rockspec"] = {std = "+rockspec"}
files[".luacheckrc"] = {std = "+luacheckrc"}
