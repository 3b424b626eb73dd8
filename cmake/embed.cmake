# nyx_embed(<file> <symbol> <variable>): the text of a file as the constant C string
# <symbol>; the source that defines it is appended to the list <variable>.
function(nyx_embed file symbol variable)
  file(READ ${file} text)
  string(REPLACE "\\" "\\\\" text "${text}")
  string(REPLACE "\"" "\\\"" text "${text}")
  string(REPLACE "\n" "\\n\"\n\"" text "${text}")
  set(source ${PROJECT_BINARY_DIR}/embedded/${symbol}.c)
  file(GENERATE OUTPUT ${source} CONTENT
       "extern const char ${symbol}[];\nconst char ${symbol}[] = \"${text}\";\n")
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  set(${variable} ${${variable}} ${source} PARENT_SCOPE)
endfunction()
