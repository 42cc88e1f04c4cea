<%@ page contentType="text/plain" session="false"
    import="java.util.UUID, java.util.concurrent.atomic.AtomicLong" %><%!
    private static final String INSTANCE = UUID.randomUUID().toString();
    private static final AtomicLong COUNT = new AtomicLong();
%><%
    String by = request.getParameter("by");
    long count = by == null ? COUNT.get() : COUNT.addAndGet(Long.parseLong(by));
%>{"pid": <%= ProcessHandle.current().pid() %>, "instance": "<%= INSTANCE %>", "count": <%= count %>}
